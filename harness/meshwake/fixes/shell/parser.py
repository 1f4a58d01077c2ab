"""Reads a shell script into a tree: what POSIX sh has, and the parts of bash that people use in
jobs and hooks.

Not read: arrays, process substitution, coprocesses, select. They raise NotRead, which says where.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from meshwake.fixes.shell import names
from meshwake.fixes.shell.tree import (
    AndOr,
    Arithmetic,
    CaseCommand,
    DoubleBracket,
    DoubleParenthesis,
    For,
    Function,
    Group,
    If,
    Literal,
    Node,
    NotRead,
    Pipeline,
    Redirect,
    Redirected,
    Segment,
    Sequence,
    Simple,
    Substitution,
    Variable,
    While,
    Word,
)

DEEPEST = 60
_NAME = re.compile(r"[A-Za-z_]\w*")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=")
# Parameters of one character: arguments, their number, the last status, process ids, options.
_SPECIAL = "@*#?$!-"
_DOLLAR_NAME = re.compile(rf"\$([A-Za-z_]\w*|\d|[{re.escape(_SPECIAL)}])")
_BRACE_NAME = re.compile(rf"\$\{{(#?)([A-Za-z_]\w*|\d+|[{re.escape(_SPECIAL)}])")
_BRACE_OPERATOR = re.compile(r":[-=+?]|[-=+?]|##?|%%?|//?|\^\^?|,,?|:")
_ENDS_WORD = " \t\n;&|<>()"
_ENDS_COMMAND = "\n;&|)"
_AND_OR = re.compile(r"&&|\|\|")
# |& pipes the errors, too, which are not followed.
_PIPE = re.compile(r"\|(?!\|)&?")
_NEXT_RESERVED = re.compile(r"\[\[|[{}!]|[a-z]+")
# bash(1): a function may have a name that no variable has, such as wait-for.it.
_BEGINS_FUNCTION = re.compile(r"([\w.:-]+)[ \t]*\([ \t]*\)")
_FUNCTION_NAME = re.compile(r"([\w.:-]+)[ \t]*(\([ \t]*\))?")
_ENDS_TEST = re.compile(r"\]\](?=[\s;&|)]|$)")
_TEST_OPERATOR = re.compile(r"&&|\|\||[<>()]")
# What is between two quotes of a kind; only in backquotes a backslash escapes.
_BETWEEN = {
    "'": re.compile(r"'([^']*)'"),
    "`": re.compile(r"`((?:[^`\\]|\\.)*)`", re.DOTALL),
}
_REDIRECT = re.compile(r"(\d*)(&>>|&>|<<<|<<-|<<|<>|<&|>&|>>|>\||<|>)")
_RESERVED = names("if then else elif fi for while until do done case esac { } ! [[ function in")
_ENDS_LIST = names("then else elif fi do done esac }")


def parse(script: str) -> Sequence:
    """The tree of `script`. Raises NotRead."""
    # POSIX, 2.2.1: a backslash before a line end joins the lines. (Not in single quotes, where it
    # is done all the same here.)
    parser = _Parser(script.replace("\\\n", ""))
    try:
        body = parser.sequence()
    except RecursionError as error:
        raise NotRead("is nested too deeply") from error
    if parser.position < len(parser.text):
        raise parser.wrong(f"{parser.rest()!r} does not belong here")
    return body


@dataclass
class _Parser:
    text: str
    position: int = 0
    depth: int = 0
    here_documents: list[tuple[str, bool, list[str]]] = field(default_factory=list)

    # --- Characters ---

    def wrong(self, what: str) -> NotRead:
        line = self.text.count("\n", 0, self.position) + 1
        return NotRead(f"line {line}: {what}")

    def rest(self) -> str:
        """What comes next, as messages show it."""
        following = self.text[self.position : self.position + 20]
        line, _, _ = following.partition("\n")
        return line or "the end of a line"

    def at(self, what: str) -> bool:
        return self.text.startswith(what, self.position)

    def at_any(self, chars: str) -> bool:
        """Whether one of `chars` comes next, or the end of the script."""
        # There nothing comes next, and "" is in every text.
        return self.peek() in chars

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def accept(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Goes behind what matches here; None where nothing does."""
        match = pattern.match(self.text, self.position)
        if match is not None:
            self.position = match.end()
        return match

    def expect(self, closing: str) -> None:
        """Goes behind `closing`, which must come next."""
        if not self.at(closing):
            raise self.wrong(f"found {self.rest()!r}, expected {closing!r}")
        self.position += len(closing)

    def blanks(self) -> None:
        """Skips blanks and a comment."""
        while self.peek() in (" ", "\t", "\r"):
            self.position += 1

        if self.peek() == "#":
            self.position = self._line_end()

    def _line_end(self) -> int:
        """The position of the next line end, or of the end of the script."""
        end = self.text.find("\n", self.position)
        return end if end >= 0 else len(self.text)

    def newlines(self) -> None:
        """Skips blanks, comments and line ends; here-documents begin after one."""
        self.blanks()
        while self.peek() == "\n":
            self.position += 1
            self._read_here_documents()
            self.blanks()

    def _read_here_documents(self) -> None:
        # Several of one line come one after another, in the order of their redirects.
        for delimiter, strips, lines in self.here_documents:
            # Without its delimiter it ends with the script, as in a shell.
            while self.position < len(self.text):
                end = self._line_end()
                line = self.text[self.position : end]
                self.position = min(end + 1, len(self.text))

                # <<- strips tabs, also those before the delimiter.
                if strips:
                    line = line.lstrip("\t")
                if line == delimiter:
                    break
                lines.append(line)

        self.here_documents.clear()

    def next_reserved(self) -> str:
        """The reserved word at this position, or ""."""
        match = _NEXT_RESERVED.match(self.text, self.position)
        if match is None or match[0] not in _RESERVED:
            return ""

        # `iffy` begins with `if`, and is a word.
        after = self.text[match.end() : match.end() + 1]
        return match[0] if after in _ENDS_WORD else ""

    def take(self, word: str) -> None:
        """Goes behind a reserved word, which must come next."""
        self.newlines()
        if self.next_reserved() != word:
            raise self.wrong(f"found {self.rest()!r}, expected {word!r}")
        self.position += len(word)

    # --- Lists ---

    def sequence(self, closing: str = "") -> Sequence:
        """Commands until what ends a list comes."""
        # Each level is seven calls or so, and Python allows some 1,000.
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.wrong("is nested too deeply")

        items: list[tuple[Node, bool]] = []
        self.newlines()
        while self.position < len(self.text) and not self._list_ends(closing):
            node = self.and_or()
            self.blanks()
            background = self.at("&") and not self.at("&&")
            items.append((node, background))

            if background or (self.at(";") and not self.at(";;")):
                self.position += 1
            # What follows a command without a separator ends the list: `)`, `}`, or an error of
            # the caller's.
            elif self.peek() != "\n":
                break
            self.newlines()

        self.depth -= 1
        return Sequence(tuple(items))

    def _list_ends(self, closing: str) -> bool:
        # The caller goes behind it.
        if closing and self.at(closing):
            return True

        # ;; ends an item of a case.
        return self.at(";;") or self.next_reserved() in _ENDS_LIST

    def and_or(self) -> Node:
        """Pipelines joined by `&&` and `||`."""
        first = self.pipeline()
        parts: list[tuple[str, Node]] = [("", first)]
        self.blanks()
        while operator := self.accept(_AND_OR):
            # The line may end behind an operator.
            self.newlines()
            parts.append((operator[0], self.pipeline()))
            self.blanks()

        if len(parts) == 1:
            return first
        return AndOr(tuple(parts))

    def pipeline(self) -> Node:
        """Commands joined by pipes."""
        self.blanks()
        begins = self.position
        negated = False
        while self.next_reserved() == "!":
            self.position += 1
            negated = not negated
            self.blanks()

        parts = [self.command()]
        self.blanks()
        while self.accept(_PIPE):
            self.newlines()
            parts.append(self.command())
            self.blanks()

        if len(parts) == 1 and not negated:
            return parts[0]
        written = self.text[begins : self.position].strip()
        return Pipeline(tuple(parts), negated, written)

    # --- Commands ---

    def command(self) -> Node:
        """One command, with its redirects."""
        self.blanks()
        node = self._compound()

        # A simple command has its redirects between its words.
        if node is None:
            return self.simple()

        redirects = self._redirects()
        return Redirected(node, redirects) if redirects else node

    def _compound(self) -> Node | None:
        """What begins with a reserved word or a parenthesis, or defines a function; or None."""
        # `((` is arithmetic only if `))` ends it; else it is a subshell in a subshell.
        if self.at("(("):
            arithmetic = self._arithmetic(self.position + 2)
            if arithmetic is not None:
                return DoubleParenthesis(arithmetic)
        if self.at("("):
            return self._group("(", ")")

        reserved = self.next_reserved()
        readers: dict[str, Callable[[], Node]] = {
            "if": self._if,
            "while": self._while,
            "until": self._while,
            "for": self._for,
            "case": self._case,
            "[[": self._double_bracket,
            "{": lambda: self._group("{", "}"),
            "function": self._function,
        }
        if reserved in readers:
            return readers[reserved]()

        # `then` without `if`, `}` without `{`.
        if reserved:
            raise self.wrong(f"found {self.rest()!r}, expected a command")

        name = self.accept(_BEGINS_FUNCTION)
        return self._body_of(name[1]) if name is not None else None

    def _group(self, opening: str, closing: str) -> Group:
        """A list in parentheses or in braces."""
        self.position += 1
        body = self.sequence(closing)
        self.newlines()
        self.expect(closing)
        return Group(body, opening == "(")

    def _if(self) -> If:
        branches = []
        otherwise = None
        word = "if"

        # elif is another condition of the same if.
        while word in ("if", "elif"):
            self.take(word)
            condition = self.sequence()
            self.take("then")
            branches.append((condition, self.sequence()))
            self.newlines()
            word = self.next_reserved()

        if word == "else":
            self.take("else")
            otherwise = self.sequence()
        self.take("fi")
        return If(tuple(branches), otherwise)

    def _while(self) -> While:
        wanted = self.next_reserved() == "while"
        self.take("while" if wanted else "until")
        condition = self.sequence()
        return While(condition, self._do(), wanted)

    def _do(self) -> Sequence:
        self.take("do")
        body = self.sequence()
        self.take("done")
        return body

    def _for(self) -> For:
        self.take("for")
        self.blanks()
        name = self.accept(_NAME)
        if name is None:
            raise self.wrong(f"'for {self.rest()}' is not understood; expected: for NAME in WORDS")

        # Without `in` it goes over the arguments.
        self.newlines()
        words = None
        if self.next_reserved() == "in":
            self.take("in")
            words = self._words()

        # A semicolon or a line end comes before `do`, which skips line ends itself.
        self.blanks()
        if self.at(";"):
            self.position += 1
        return For(name[0], words, self._do())

    def _words(self) -> tuple[Word, ...]:
        words = []
        self.blanks()
        while not self.at_any(_ENDS_COMMAND):
            words.append(self.word())
            self.blanks()
        return tuple(words)

    def _case(self) -> CaseCommand:
        self.take("case")
        self.blanks()
        subject = self.word()
        self.take("in")

        items = []
        self.newlines()
        while self.next_reserved() != "esac":
            if not self.peek():
                raise self.wrong("a case without esac")

            # POSIX, 2.9.4: a pattern may have an opening parenthesis, too.
            if self.at("("):
                self.position += 1
            patterns = self._patterns()
            body = self.sequence()
            items.append((patterns, body))
            self._end_of_item()

        self.take("esac")
        return CaseCommand(subject, tuple(items))

    def _end_of_item(self) -> None:
        """Goes behind the `;;` of an item, which the last one need not have."""
        self.newlines()

        # bash(1): they go on with the next item, or with its patterns, which is not followed here.
        if self.at(";&") or self.at(";;&"):
            raise self.wrong("';&' in a case is not understood")
        if self.at(";;"):
            self.position += 2
        self.newlines()

    def _patterns(self) -> tuple[Word, ...]:
        """The patterns of an item, up to the parenthesis behind them."""
        patterns = []
        while True:
            self.blanks()
            patterns.append(self.word())
            self.blanks()

            if self.at(")"):
                self.position += 1
                return tuple(patterns)

            if not self.at("|"):
                raise self.wrong(f"found {self.rest()!r}, expected ')' after the pattern of a case")
            self.position += 1

    def _function(self) -> Function:
        """`function NAME`, with parentheses or without."""
        self.take("function")
        self.blanks()
        name = self.accept(_FUNCTION_NAME)
        if name is None:
            raise self.wrong("a function without a name")
        return replace(self._body_of(name[1]), by_keyword=True)

    def _body_of(self, name: str) -> Function:
        self.newlines()
        return Function(name, self.command())

    def _double_bracket(self) -> DoubleBracket:
        begins = self.position
        self.position += 2
        words: list[Word] = []
        self.newlines()
        while not self.accept(_ENDS_TEST):
            words.append(self._word_of_test(words))
            self.newlines()

        written = self.text[begins : self.position]
        return DoubleBracket(tuple(words), written)

    def _word_of_test(self, before: list[Word]) -> Word:
        """The next word in `[[ ]]`, or an operator of one or two characters."""
        operator = self.accept(_TEST_OPERATOR)
        if operator is not None:
            literal = Literal(operator[0], quoted=False)
            return Word((literal,), operator[0])

        if not self.peek():
            raise self.wrong("'[[' without ']]'")

        # Parentheses and bars belong to the expression behind =~, and end every other word.
        if before and before[-1].plain == "=~":
            return self.word(" \t\n")
        return self.word()

    def _arithmetic(self, begins: int) -> str | None:
        """What is between `begins` and the `))` that ends it, and goes behind that; None without
        one."""
        depth = 0
        for at in range(begins, len(self.text) - 1):
            if self.text[at] == "(":
                depth += 1
            if self.text[at] != ")":
                continue

            if depth == 0:
                # `((a); b)` begins with two parentheses, too.
                if self.text[at + 1] != ")":
                    return None
                self.position = at + 2
                return self.text[begins:at]
            depth -= 1
        return None

    def simple(self) -> Simple:
        """Assignments, words and redirects, up to what ends a command."""
        begins = self.position
        assignments: list[tuple[str, bool, Word]] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            self.blanks()
            redirect = self._redirect()
            if redirect is not None:
                redirects.append(redirect)
                continue

            if self.at_any(_ENDS_COMMAND):
                break
            if self.at("("):
                raise self.wrong(
                    "'(' is not understood here: arrays and process substitution are not read"
                )

            # Only before the first word: `env A=1` has an argument, and no assignment.
            assignment = self.accept(_ASSIGNMENT) if not words else None
            if assignment is None:
                words.append(self.word())
                continue
            name, appends = assignment.groups()
            assignments.append((name, bool(appends), self._value()))

        if self.position == begins:
            raise self.wrong(f"found {self.rest()!r}, expected a command")
        return Simple(
            tuple(assignments),
            tuple(words),
            tuple(redirects),
            self.text[begins : self.position].strip(),
        )

    def _value(self) -> Word:
        """The value of an assignment, which may be empty."""
        if self.at("("):
            raise self.wrong("arrays are not read")
        if self.at_any(_ENDS_WORD):
            return Word((), "")
        return self.word()

    def _redirects(self) -> tuple[Redirect, ...]:
        """Those behind a compound command."""
        found: list[Redirect] = []
        self.blanks()
        while redirect := self._redirect():
            found.append(redirect)
            self.blanks()
        return tuple(found)

    def _redirect(self) -> Redirect | None:
        match = self.accept(_REDIRECT)
        if match is None:
            return None

        # <(...) and >(...)
        if self.at("("):
            raise self.wrong("process substitution is not read")

        self.blanks()
        operator = match[2]
        target = self.word()
        if operator not in ("<<", "<<-"):
            return Redirect(operator, target)

        # Read when the line ends (newlines); until then the list is empty.
        lines: list[str] = []
        delimiter = "".join(each.text for each in target.segments if isinstance(each, Literal))
        self.here_documents.append((delimiter, operator == "<<-", lines))
        return Redirect(operator, target, lines)

    # --- Words ---

    def word(self, ends: str = _ENDS_WORD) -> Word:
        """A word, up to one of the characters `ends`."""
        begins = self.position
        segments: list[Segment] = []
        while not self.at_any(ends):
            segments += self._segments(quoted=False, ends=ends)

        if self.position == begins:
            raise self.wrong(f"found {self.rest()!r}, expected a word")
        return Word(tuple(segments), self.text[begins : self.position])

    def _segments(self, *, quoted: bool, ends: str) -> list[Segment]:
        """One piece of a word, or of a text in double quotes."""
        match self.peek():
            case "\\":
                return [self._escaped(quoted=quoted)]
            case "$":
                return [self._dollar(quoted=quoted)]
            case "`":
                return [self._backquoted(quoted=quoted)]
            # Also in "${NAME:-"..."}", whose quotes are others than those around it.
            case '"':
                return self._double_quoted()
            # POSIX, 2.2.3: in double quotes it means itself.
            case "'" if not quoted:
                return [Literal(self._until("'"), quoted=True)]
        return [self._literal(quoted=quoted, ends=ends)]

    def _backquoted(self, *, quoted: bool) -> Substitution:
        """The older spelling of `$(...)`."""
        # POSIX, 2.6.3: in backquotes a backslash escapes these three.
        text = re.sub(r"\\([`$\\])", r"\1", self._until("`"))
        return Substitution(parse(text), text, quoted)

    def _escaped(self, *, quoted: bool) -> Literal:
        """A backslash and what follows it. In double quotes it escapes four characters only, and
        stays in the text before any other."""
        following = self.text[self.position + 1 : self.position + 2]
        self.position += 2

        # POSIX, 2.2.3.
        if quoted and following not in '$`"\\':
            return Literal(f"\\{following}", quoted=True)
        return Literal(following, quoted=True)

    def _literal(self, *, quoted: bool, ends: str) -> Literal:
        """Characters that mean themselves: at least one, up to the next that means something."""
        stops = f'\\"$`{ends}' if quoted else f"\\'\"$`{ends}"
        begins = self.position
        self.position += 1
        while not self.at_any(stops):
            self.position += 1
        return Literal(self.text[begins : self.position], quoted)

    def _until(self, quote: str) -> str:
        """What is between two quotes of this kind."""
        match = self.accept(_BETWEEN[quote])
        if match is None:
            raise self.wrong(f"a {quote} that nothing closes")
        return match[1]

    def _double_quoted(self) -> list[Segment]:
        self.position += 1

        # "" is an empty argument, and not nothing.
        segments: list[Segment] = [Literal("", quoted=True)]
        while not self.at_any('"'):
            segments += self._segments(quoted=True, ends='"')

        if not self.peek():
            raise self.wrong('a " that nothing closes')
        self.position += 1
        return segments

    def _dollar(self, *, quoted: bool) -> Segment:
        """What a dollar begins."""
        # `$((` is arithmetic only if `))` ends it; else a subshell is the first of a substitution.
        if self.at("$(("):
            arithmetic = self._arithmetic(self.position + 3)
            if arithmetic is not None:
                return Arithmetic(arithmetic, quoted)

        if self.at("$("):
            return self._substitution(quoted=quoted)
        if self.at("${"):
            return self._braces(quoted=quoted)
        if self.at("$'") and not quoted:
            return self._escapes()

        name = self.accept(_DOLLAR_NAME)
        if name is not None:
            return Variable(name[1], "", None, quoted)

        # A dollar before a blank, or at the end, means itself.
        self.position += 1
        return Literal("$", quoted)

    def _escapes(self) -> Literal:
        """`$'...'`, with the escapes of C in it."""
        self.position += 1
        raw = self._until("'")
        try:
            text = raw.encode("latin-1", "backslashreplace").decode("unicode_escape")
        except UnicodeDecodeError as error:
            raise self.wrong(f"$'{raw}' is not understood") from error
        return Literal(text, quoted=True)

    def _substitution(self, *, quoted: bool) -> Substitution:
        """`$(...)`."""
        self.position += 2
        begins = self.position
        body = self.sequence(")")
        self.newlines()
        text = self.text[begins : self.position].strip()
        self.expect(")")
        return Substitution(body, text, quoted)

    def _braces(self, *, quoted: bool) -> Variable:
        """`${name}`, `${#name}`, or `${name` with an operator and its argument."""
        name = self.accept(_BRACE_NAME)
        if name is None:
            raise self.wrong(f"{self.rest()!r} is not understood")

        # Only a whole variable has a length.
        if name[1] == "#":
            if not self.at("}"):
                raise self.wrong("'${#' is not understood here")
            self.expect("}")
            return Variable(name[2], "length", None, quoted)

        operator = self.accept(_BRACE_OPERATOR)
        word = self._brace_word(quoted=quoted) if operator is not None else None
        self.expect("}")
        return Variable(name[2], operator[0] if operator is not None else "", word, quoted)

    def _brace_word(self, *, quoted: bool) -> Word:
        """The argument of an operator, up to the closing brace."""
        begins = self.position
        segments: list[Segment] = []
        while not self.at_any("}"):
            segments += self._segments(quoted=quoted, ends="}")
        return Word(tuple(segments), self.text[begins : self.position])
