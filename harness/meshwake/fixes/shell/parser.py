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
        return self.text[self.position : self.position + 20].split("\n")[0] or "the end of a line"

    def at(self, what: str) -> bool:
        return self.text.startswith(what, self.position)

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def blanks(self) -> None:
        """Skips blanks and a comment."""
        while self.peek() in (" ", "\t", "\r") and self.peek():
            self.position += 1
        if self.peek() == "#":
            end = self.text.find("\n", self.position)
            self.position = len(self.text) if end < 0 else end

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
            while self.position < len(self.text):
                end = self.text.find("\n", self.position)
                end = len(self.text) if end < 0 else end
                line = self.text[self.position : end]
                self.position = min(end + 1, len(self.text))
                line = line.lstrip("\t") if strips else line
                if line == delimiter:
                    break
                lines.append(line)
        self.here_documents.clear()

    def next_reserved(self) -> str:
        """The reserved word at this position, or ""."""
        match = re.compile(r"\[\[|[{}!]|[a-z]+").match(self.text, self.position)
        if match is None or match[0] not in _RESERVED:
            return ""
        # `iffy` begins with `if`, and is a word.
        after = self.text[match.end() : match.end() + 1]
        return match[0] if not after or after in _ENDS_WORD else ""

    def take(self, word: str) -> None:
        self.newlines()
        if self.next_reserved() != word:
            raise self.wrong(f"found {self.rest()!r}, expected {word!r}")
        self.position += len(word)

    # --- Lists ---

    def sequence(self, closing: str = "") -> Sequence:
        """Commands until what ends a list comes."""
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
        return (
            bool(closing and self.at(closing))
            or self.at(";;")
            or self.next_reserved() in _ENDS_LIST
        )

    def and_or(self) -> Node:
        parts: list[tuple[str, Node]] = [("", self.pipeline())]
        while True:
            self.blanks()
            if not (self.at("&&") or self.at("||")):
                break
            operator = self.text[self.position : self.position + 2]
            self.position += 2
            self.newlines()
            parts.append((operator, self.pipeline()))
        return parts[0][1] if len(parts) == 1 else AndOr(tuple(parts))

    def pipeline(self) -> Node:
        self.blanks()
        begins, negated = self.position, False
        while self.next_reserved() == "!":
            self.position += 1
            negated = not negated
            self.blanks()
        parts = [self.command()]
        while True:
            self.blanks()
            if not self.at("|") or self.at("||"):
                break
            # |& pipes the errors, too, which are not followed.
            self.position += 2 if self.at("|&") else 1
            self.newlines()
            parts.append(self.command())
        if len(parts) == 1 and not negated:
            return parts[0]
        return Pipeline(tuple(parts), negated, self.text[begins : self.position].strip())

    # --- Commands ---

    def command(self) -> Node:
        self.blanks()
        node = self._compound()
        if node is None:
            return self.simple()
        redirects = self._redirects()
        return Redirected(node, redirects) if redirects else node

    def _compound(self) -> Node | None:
        # `((` is arithmetic only if `))` ends it; else it is a subshell in a subshell.
        if self.at("((") and (end := self._double_end(self.position + 2)) is not None:
            text, self.position = self.text[self.position + 2 : end], end + 2
            return DoubleParenthesis(text)
        if self.at("("):
            return self._group("(", ")")
        readers: dict[str, Callable[[], Node]] = {
            "if": self._if,
            "while": self._while,
            "until": self._while,
            "for": self._for,
            "case": self._case,
            "[[": self._double_bracket,
            "function": self._function,
        }
        reserved = self.next_reserved()
        if reserved == "{":
            return self._group("{", "}")
        if reserved in readers:
            return readers[reserved]()
        if reserved:
            raise self.wrong(f"found {self.rest()!r}, expected a command")
        if match := re.compile(r"([\w.:-]+)[ \t]*\([ \t]*\)").match(self.text, self.position):
            self.position = match.end()
            return self._body_of(match[1])
        return None

    def _group(self, opening: str, closing: str) -> Group:
        self.position += 1
        body = self.sequence(closing)
        self.newlines()
        if not self.at(closing):
            raise self.wrong(f"found {self.rest()!r}, expected {closing!r}")
        self.position += 1
        return Group(body, opening == "(")

    def _if(self) -> If:
        branches, otherwise, word = [], None, "if"
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
        match = _NAME.match(self.text, self.position)
        if match is None:
            raise self.wrong(f"'for {self.rest()}' is not understood; expected: for NAME in WORDS")
        self.position = match.end()
        self.newlines()
        words = None
        if self.next_reserved() == "in":
            self.take("in")
            words = self._words()
        self.blanks()
        if self.at(";"):
            self.position += 1
        return For(match[0], words, self._do())

    def _words(self) -> tuple[Word, ...]:
        words = []
        self.blanks()
        while self.peek() and self.peek() not in "\n;&|)":
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
            if self.at("("):
                self.position += 1
            patterns = self._patterns()
            body = self.sequence()
            items.append((patterns, body))
            self._end_of_item()
        self.take("esac")
        return CaseCommand(subject, tuple(items))

    def _end_of_item(self) -> None:
        self.newlines()
        if self.at(";&") or self.at(";;&"):
            raise self.wrong("';&' in a case is not understood")
        if self.at(";;"):
            self.position += 2
        self.newlines()

    def _patterns(self) -> tuple[Word, ...]:
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
        self.take("function")
        self.blanks()
        match = re.compile(r"([\w.:-]+)[ \t]*(\([ \t]*\))?").match(self.text, self.position)
        if match is None:
            raise self.wrong("a function without a name")
        self.position = match.end()
        return replace(self._body_of(match[1]), by_keyword=True)

    def _body_of(self, name: str) -> Function:
        self.newlines()
        return Function(name, self.command())

    def _double_bracket(self) -> DoubleBracket:
        begins = self.position
        self.position += 2
        words: list[Word] = []
        while True:
            self.newlines()
            if match := re.compile(r"\]\](?=[\s;&|)]|$)").match(self.text, self.position):
                self.position = match.end()
                return DoubleBracket(tuple(words), self.text[begins : self.position])
            if match := re.compile(r"&&|\|\||[<>()]").match(self.text, self.position):
                self.position = match.end()
                words.append(Word((Literal(match[0], quoted=False),), match[0]))
                continue
            if not self.peek():
                raise self.wrong("'[[' without ']]'")
            # Parentheses and bars belong to the expression behind =~, and end every other word.
            is_pattern = bool(words) and words[-1].plain == "=~"
            words.append(self.word(" \t\n" if is_pattern else _ENDS_WORD))

    def _double_end(self, begins: int) -> int | None:
        """The position of the `))` that ends what begins at `begins`; None without one."""
        depth = 0
        for at in range(begins, len(self.text) - 1):
            if self.text[at] == "(":
                depth += 1
            elif self.text[at] == ")":
                if depth == 0:
                    return at if self.text[at + 1] == ")" else None
                depth -= 1
        return None

    def simple(self) -> Simple:
        begins = self.position
        assignments: list[tuple[str, bool, Word]] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            self.blanks()
            if redirect := self._redirect():
                redirects.append(redirect)
                continue
            if not self.peek() or self.peek() in "\n;&|)":
                break
            if self.at("("):
                raise self.wrong(
                    "'(' is not understood here: arrays and process substitution are not read"
                )
            # Only before the first word: `env A=1` has an argument, and no assignment.
            match = _ASSIGNMENT.match(self.text, self.position) if not words else None
            if match is not None:
                self.position = match.end()
                assignments.append((match[1], bool(match[2]), self._value()))
            else:
                words.append(self.word())
        if not (assignments or words or redirects):
            raise self.wrong(f"found {self.rest()!r}, expected a command")
        return Simple(
            tuple(assignments),
            tuple(words),
            tuple(redirects),
            self.text[begins : self.position].strip(),
        )

    def _value(self) -> Word:
        if self.at("("):
            raise self.wrong("arrays are not read")
        return self.word() if self.peek() and self.peek() not in _ENDS_WORD else Word((), "")

    def _redirects(self) -> tuple[Redirect, ...]:
        found: list[Redirect] = []
        while True:
            self.blanks()
            redirect = self._redirect()
            if redirect is None:
                return tuple(found)
            found.append(redirect)

    def _redirect(self) -> Redirect | None:
        match = _REDIRECT.match(self.text, self.position)
        if match is None:
            return None
        if self.text.startswith("(", match.end()):
            raise self.wrong("process substitution is not read")
        self.position = match.end()
        self.blanks()
        target = self.word()
        if match[2] in ("<<", "<<-"):
            # Read when the line ends (newlines); until then the list is empty.
            lines: list[str] = []
            delimiter = "".join(each.text for each in target.segments if isinstance(each, Literal))
            self.here_documents.append((delimiter, match[2] == "<<-", lines))
            return Redirect(match[2], target, lines)
        return Redirect(match[2], target)

    # --- Words ---

    def word(self, ends: str = _ENDS_WORD) -> Word:
        begins, segments = self.position, list[Segment]()
        while self.peek() and self.peek() not in ends:
            self._segment(segments, quoted=False, ends=ends)
        if self.position == begins:
            raise self.wrong(f"found {self.rest()!r}, expected a word")
        return Word(tuple(segments), self.text[begins : self.position])

    def _segment(self, segments: list[Segment], *, quoted: bool, ends: str) -> None:
        """One piece of a word, or of a text in double quotes."""
        char = self.peek()
        if char == "\\":
            segments.append(self._escaped(quoted=quoted))
        elif char == "'" and not quoted:
            segments.append(Literal(self._until("'"), quoted=True))
        elif char == '"' and not quoted:
            segments += self._double_quoted()
        elif char == "$":
            segments.append(self._dollar(quoted=quoted))
        elif char == "`":
            # POSIX, 2.6.3: in backquotes a backslash escapes these three.
            text = re.sub(r"\\([`$\\])", r"\1", self._until("`"))
            segments.append(Substitution(parse(text), text, quoted))
        else:
            segments.append(self._literal(quoted=quoted, ends=ends))

    def _escaped(self, *, quoted: bool) -> Literal:
        """A backslash and what follows it. In double quotes it escapes four characters only, and
        stays in the text before any other."""
        following = self.text[self.position + 1 : self.position + 2]
        self.position += 2
        if quoted and following not in '$`"\\':
            return Literal(f"\\{following}", quoted=True)
        return Literal(following, quoted=True)

    def _literal(self, *, quoted: bool, ends: str) -> Literal:
        """Characters that mean themselves: at least one, up to the next that means something."""
        stops = f'\\"$`{ends}' if quoted else f"\\'\"$`{ends}"
        begins = self.position
        self.position += 1
        while self.peek() and self.peek() not in stops:
            self.position += 1
        return Literal(self.text[begins : self.position], quoted)

    def _until(self, quote: str) -> str:
        """What is between two quotes of this kind; only in backquotes a backslash escapes."""
        begins = self.position + 1
        end = begins
        while end < len(self.text) and self.text[end] != quote:
            end += 2 if quote == "`" and self.text[end] == "\\" else 1
        if end >= len(self.text):
            raise self.wrong(f"a {quote} that nothing closes")
        self.position = end + 1
        return self.text[begins:end]

    def _double_quoted(self) -> list[Segment]:
        self.position += 1
        # "" is an empty argument, and not nothing.
        segments: list[Segment] = [Literal("", quoted=True)]
        while self.peek() != '"':
            if not self.peek():
                raise self.wrong('a " that nothing closes')
            self._segment(segments, quoted=True, ends='"')
        self.position += 1
        return segments

    def _dollar(self, *, quoted: bool) -> Segment:
        if self.at("$((") and (end := self._double_end(self.position + 3)) is not None:
            text, self.position = self.text[self.position + 3 : end], end + 2
            return Arithmetic(text, quoted)
        if self.at("$("):
            return self._substitution(quoted=quoted)
        if self.at("${"):
            return self._braces(quoted=quoted)
        if not quoted and self.at("$'"):
            return self._escapes()
        match = _DOLLAR_NAME.match(self.text, self.position)
        # A dollar before a blank, or at the end, means itself.
        if match is None:
            self.position += 1
            return Literal("$", quoted)
        self.position = match.end()
        return Variable(match[1], "", None, quoted)

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
        self.position += 2
        begins = self.position
        body = self.sequence(")")
        self.newlines()
        if not self.at(")"):
            raise self.wrong(f"found {self.rest()!r}, expected ')'")
        text = self.text[begins : self.position].strip()
        self.position += 1
        return Substitution(body, text, quoted)

    def _braces(self, *, quoted: bool) -> Variable:
        """`${name}`, `${#name}`, or `${name` with an operator and its argument."""
        match = _BRACE_NAME.match(self.text, self.position)
        if match is None:
            raise self.wrong(f"{self.rest()!r} is not understood")
        is_length, name = match[1] == "#", match[2]
        self.position = match.end()
        operator, word = "", None
        if is_length:
            operator = "length"
            if self.peek() != "}":
                raise self.wrong("'${#' is not understood here")
        elif found := _BRACE_OPERATOR.match(self.text, self.position):
            operator, self.position = found[0], found.end()
            word = self._brace_word(quoted=quoted)
        if not self.at("}"):
            raise self.wrong(f"found {self.rest()!r}, expected '}}'")
        self.position += 1
        return Variable(name, operator, word, quoted)

    def _brace_word(self, *, quoted: bool) -> Word:
        """The argument of an operator, up to the closing brace."""
        segments: list[Segment] = []
        begins = self.position
        while self.peek() and self.peek() != "}":
            if quoted and self.peek() == '"':
                segments += self._double_quoted()
            else:
                self._segment(segments, quoted=quoted, ends="}")
        return Word(tuple(segments), self.text[begins : self.position])
