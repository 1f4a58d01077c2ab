// See README.md. Go's only waits are timers, which its runtime keeps in its event loop. It has no name for a monotonic
// clock but the time since some moment.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

var start = time.Now()

func say(word string) {
	now := time.Now()
	fmt.Printf("%s %d %d -\n", word, now.UnixNano(), now.Sub(start).Nanoseconds())
}

func main() {
	if len(os.Args) > 1 {
		say("child")
		return
	}
	say("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch words[0] {
		case "clocks":
			say("clocks")
		case "wait":
			var ms int
			fmt.Sscan(words[2], &ms)
			fmt.Println("waiting")
			time.Sleep(time.Duration(ms) * time.Millisecond)
			fmt.Println("waited")
		case "fork":
			fmt.Println("cannot")
		case "exec":
			said, _ := exec.Command(os.Args[0], "once").Output()
			os.Stdout.Write(said)
		}
	}
}
