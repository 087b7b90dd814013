//! `fusion chat` on a pseudo-terminal: keys and signals at every moment.

mod support;

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::termios::LocalFlags;
use serde_json::Value;
use support::chat::{CONTROL_D, Chat, FAKE_ANSWER as ANSWER, down, running};
use support::terminal::Terminal;
use support::{Sandbox, processes, wait_until};

const CONTROL_C: &str = "\x03";

#[track_caller]
fn assert_restored(terminal: Terminal) {
    let flags = terminal.flags();
    assert!(flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::IEXTEN), "{flags:?}");
    let shown = terminal.finish();
    assert!(shown.rfind("\x1b[?2004l") > shown.rfind("\x1b[?2004h"), "{shown:?}");
}

/// The lines of a session file.
fn lines(sandbox: &Sandbox, name: &str) -> Vec<Value> {
    let path = sandbox.config_dir().join(format!("data/sessions/{name}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The questions in a session file.
fn questions(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let lines = lines(sandbox, name);
    let questions = lines.iter().filter(|line| line["role"] == "user");
    questions.map(|line| line["content"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn control_c_keeps_the_part_of_an_answer() {
    let sandbox = running(&["token-after=400"]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("Why?\r").expect("Hello").send(CONTROL_C);
    chat.expect("stopped; the part of the answer is kept").types("abc").expect("abc").send(CONTROL_C);
    chat.types("/retry\r").expect("Hello").expect(ANSWER.trim_start_matches("Hello"));
    chat.leaves();
    let lines = lines(&sandbox, "one");
    let [_, question, part, retry, answer] = &*lines else { panic!("{lines:#?}") };
    assert_eq!((&question["content"], &part["partial"]), (&"Why?".into(), &true.into()));
    assert!(part["content"].as_str().is_some_and(|part| part.starts_with("Hello")), "{part}");
    assert_eq!((&retry["mark"], &answer["content"]), (&"retry".into(), &ANSWER.into()));
    down(&sandbox);
}

#[test]
fn control_c_before_the_answer_keeps_the_question() {
    let sandbox = running(&["chat-hang"]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("Why?\r");
    wait_until("the question arrives", || sandbox.log("ollama").contains("POST /v1/chat"));
    chat.send(CONTROL_C).expect("stopped before the answer began");
    chat.leaves();
    assert_eq!(questions(&sandbox, "one"), ["Why?"]);
    down(&sandbox);
}

#[test]
fn keys_typed_during_an_answer_are_kept() {
    let sandbox = running(&["token-after=20"]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("one\rtwo\rthree\r").expect(ANSWER).expect(ANSWER).expect(ANSWER);
    chat.leaves();
    assert_eq!(questions(&sandbox, "one"), ["one", "two", "three"]);
    down(&sandbox);
}

#[test]
fn keys_typed_during_an_answer_are_not_shown() {
    let sandbox = running(&["token-after=200"]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("one\r").expect("Hello").send("xyz").expect("runtime.");
    let shown = chat.shown();
    let answered = shown.split("runtime.").next().expect("a first part");
    assert!(!answered.contains("xyz"), "{shown:?}");
    chat.expect("> ").expect("xyz").send("\r").expect(ANSWER);
    chat.leaves();
    assert_eq!(questions(&sandbox, "one"), ["one", "xyz"]);
    down(&sandbox);
}

#[test]
fn control_d_during_an_answer_leaves_after_it() {
    let sandbox = running(&["token-after=100"]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("one\r").expect("Hello").send(CONTROL_D);
    let shown = chat.ends(0);
    assert!(shown.contains(ANSWER), "{shown:?}");
    down(&sandbox);
}

#[test]
fn a_paste_during_an_answer_is_one_message() {
    let sandbox = running(&["token-after=100"]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("one\r")
        .expect("Hello")
        .send("\x1b[200~two\rthree\r\x1b[201~\r")
        .expect("runtime.")
        .expect(ANSWER);
    chat.leaves();
    assert_eq!(questions(&sandbox, "one"), ["one", "two\nthree"]);
    down(&sandbox);
}

#[test]
fn control_c_at_the_prompt_clears_the_line() {
    let sandbox = running(&[]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("abc").expect("abc").send(CONTROL_C).asks("one");
    chat.types("two\\\r").expect("... ").send("three").expect("three").send(CONTROL_C).asks("four");
    chat.leaves();
    assert_eq!(questions(&sandbox, "one"), ["one", "four"]);
    down(&sandbox);
}

#[test]
fn control_c_stops_the_start_of_the_service() {
    for fault in ["never-bind", "loading=600000"] {
        let sandbox = Sandbox::new();
        sandbox.faults("ollama", &[fault]);
        let mut chat = Chat::start(&sandbox, "-s one");
        chat.types("Hi\r").expect("starting ollama");
        wait_until("it was started", || {
            sandbox.record("ollama").is_some_and(|record| !record["process"].is_null())
        });
        chat.send(CONTROL_C).expect("stopped before the answer began; /retry asks again");
        chat.leaves();
        assert_eq!(questions(&sandbox, "one"), ["Hi"], "{fault}");
        sandbox.assert_nothing_runs();
    }
}

/// A stopped server accepts connections, and is silent.
#[test]
fn control_c_leaves_a_silent_server() {
    let sandbox = running(&[]);
    let server = sandbox.pid("ollama").expect("it runs");
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.expect("> ");
    processes::send(server, Signal::SIGSTOP);
    chat.send("Hi\r").expect("waiting for Ollama").send(CONTROL_C).expect("stopped before the answer began");
    processes::send(server, Signal::SIGCONT);
    chat.types("/retry\r").expect(ANSWER);
    chat.leaves();
    down(&sandbox);
}

#[test]
fn interrupts_at_any_moment_lose_no_question() {
    let sandbox = running(&["quiet"]);
    let mut chat = Chat::start(&sandbox, "-s one");
    let all: Vec<String> = (0..40).map(|turn| format!("question {turn}")).collect();
    for question in &all {
        chat.types(&format!("{question}\r")).expect(question);
        std::thread::sleep(Duration::from_micros(random(8000)));
        // As a key, it would empty the line if the prompt is back.
        chat.fusion.signal(Signal::SIGINT);
    }
    chat.leaves();
    assert_eq!(questions(&sandbox, "one"), all);
    down(&sandbox);
}

#[test]
fn control_c_stops_a_command() {
    let sandbox = Sandbox::new();
    let mut chat = Chat::start(&sandbox, "-s one");
    // A program that the shell is just starting misses the interrupt as one that ignores it does.
    for start in ["", "trap '' INT; "] {
        let ran = sandbox.project().join("ran");
        chat.types(&format!("!{start}echo ran > ran; cat\r"));
        wait_until("the command runs", || ran.exists());
        chat.send(CONTROL_C).expect("stopped; nothing is added");
        std::fs::remove_file(ran).expect("the command ran");
    }
    chat.leaves();
    sandbox.assert_nothing_runs();
}

#[test]
fn a_command_has_the_terminal_as_it_was() {
    let sandbox = Sandbox::new();
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("!stty -a > settings; read line; echo $line > line\r");
    wait_until("the command runs", || sandbox.project().join("settings").exists());
    chat.send("typed\n").expect("goes with the next message");
    chat.leaves();
    let read = |name: &str| std::fs::read_to_string(sandbox.project().join(name)).expect("the file");
    let settings = read("settings");
    assert!(settings.contains(" icanon") && settings.contains(" echo "), "{settings}");
    assert_eq!(read("line"), "typed\n");
}

#[test]
fn every_ending_signal_restores_the_terminal() {
    let sandbox = running(&["token-after=200"]);
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGQUIT, 131)] {
        for answers in [false, true] {
            let mut chat = Chat::start(&sandbox, "--no-save");
            chat.expect("> ");
            if answers {
                chat.send("one\r").expect("Hello");
            }
            chat.fusion.signal(signal);
            assert_restored(chat.leaves_terminal(code));
        }
    }
    down(&sandbox);
}

#[test]
fn leaving_restores_the_terminal() {
    let sandbox = Sandbox::new();
    let mut chat = Chat::start(&sandbox, "--no-save");
    chat.types(CONTROL_D);
    assert_restored(chat.leaves_terminal(0));
}

#[test]
fn control_z_gives_the_terminal_back() {
    let sandbox = running(&["token-after=200"]);
    let script = "\"$0\" ollama chat -s one; echo \"stopped: $?\"; stty -a; fg >/dev/null; echo \"stopped: $?\"; stty -a; fg";
    let mut chat = Chat::script(&sandbox, Terminal::open(), &format!("set -m; {script}"));
    chat.types("one\r").expect("Hello").send("\x1a").expect("stopped: 1").expect(" icanon").expect(" echo ");
    chat.expect("runtime.").types("\x1a").expect("stopped: 1").expect(" icanon").expect(" echo ");
    chat.asks("two");
    chat.leaves();
    assert_eq!(questions(&sandbox, "one"), ["one", "two"]);
    down(&sandbox);
}

#[test]
fn fifty_turns_survive_kills_at_random_moments() {
    let sandbox = running(&["quiet", "token-after=5"]);
    let mut chat = Chat::start(&sandbox, "-s long");
    chat.asks("question 0");
    chat.leaves();
    let (mut kept, mut asked, mut kills) = (vec![0], 0, 0);
    while kept.len() < 50 {
        let mut chat = Chat::start(&sandbox, "--continue");
        let pid = chat.fusion.pid();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(random(400_000)));
            processes::send(pid, Signal::SIGKILL);
        });
        let mut is_at_prompt = chat.shows("> ");
        while is_at_prompt {
            asked += 1;
            chat.send(&format!("question {asked}\r"));
            // The prompt follows the writing of the answer.
            is_at_prompt = chat.shows(ANSWER) && chat.shows("> ");
            kept.extend(is_at_prompt.then_some(asked));
        }
        killer.join().expect("no panic");
        chat.ends(137);
        kills += 1;
    }
    let mut chat = Chat::start(&sandbox, "--continue");
    chat.expect("long: ").asks("the last one");
    chat.leaves();
    let lines = lines(&sandbox, "long");
    for number in kept {
        let at = lines.iter().position(|line| line["content"] == format!("question {number}"));
        let answer = at.and_then(|at| lines.get(at + 1)).expect("an answer");
        assert_eq!(answer["content"], ANSWER, "question {number}, after {kills} kills");
    }
    down(&sandbox);
}

/// A number below `bound`.
fn random(bound: u64) -> u64 {
    RandomState::new().hash_one(0) % bound
}
