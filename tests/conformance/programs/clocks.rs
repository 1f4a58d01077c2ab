// See README.md. What the standard library has: SystemTime, Instant (which counts from a moment of its own), and sleep.
use std::io::{BufRead, Write};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn tell(line: &str) {
    let mut output = std::io::stdout();
    output.write_all(format!("{line}\n").as_bytes()).unwrap();
    output.flush().unwrap();
}

fn say(word: &str, start: Instant) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    tell(&format!("{word} {wall} {} -", start.elapsed().as_nanos()));
}

fn main() {
    let start = Instant::now();
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() > 1 {
        return say("child", start);
    }
    say("ready", start);
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "clocks" => say("clocks", start),
            "wait" => {
                tell("waiting");
                std::thread::sleep(Duration::from_millis(words[2].parse().unwrap()));
                tell("waited");
            }
            "exec" => {
                let made = Command::new(&arguments[0]).arg("once").output().unwrap();
                tell(String::from_utf8(made.stdout).unwrap().trim_end());
            }
            _ => tell("cannot"),
        }
    }
}
