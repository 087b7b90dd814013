//! Every page of help, as it is printed.

mod support;

use std::fmt::Write as _;

use clap::Command;
use fusion::core::runtimes::TABLE;
use support::Sandbox;

/// Calls `visit` with the words of every command that is not hidden, `fusion` itself first.
fn every_command(visit: &mut impl FnMut(&[&str], &Command)) {
    fn walk<'a>(command: &'a Command, words: &mut Vec<&'a str>, visit: &mut impl FnMut(&[&str], &Command)) {
        visit(words, command);
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            if command.get_name() != "help" {
                words.push(command.get_name());
                walk(command, words, visit);
                words.pop();
            }
        }
    }
    let mut command = fusion::cli::tree::command(TABLE, &[]);
    command.build();
    walk(&command, &mut Vec::new(), visit);
}

fn help(sandbox: &Sandbox, words: &[&str], option: &str) -> String {
    let finished = sandbox.fusion(words.iter().copied().chain([option])).run_in_process().assert_code(0);
    assert_eq!(finished.stderr(), "", "help of {words:?}");
    finished.stdout()
}

/// One runtime's pages stand for those of every runtime.
#[test]
fn every_page_of_help() {
    let sandbox = Sandbox::new();
    let [first, others @ ..] = TABLE else { panic!("no runtime") };
    let mut pages = String::new();
    every_command(&mut |words, _| {
        for option in ["-h", "--help"] {
            let page = help(&sandbox, words, option);
            assert!(page.lines().all(|line| line.chars().count() <= 100), "too wide: {page}");
            if let Some(other) = others.iter().find(|other| words.first() == Some(&other.name())) {
                let like = [&[first.name()], &words[1..]].concat();
                let expected = help(&sandbox, &like, option).replace(first.name(), other.name());
                let expected = expected.replace(first.display_name(), other.display_name());
                // The length of a name may decide where a line is wrapped.
                assert!(
                    page.split_whitespace().eq(expected.split_whitespace()),
                    "{page}\n--- like {expected}"
                );
            } else {
                let title = [&["fusion"], words, &[option]].concat().join(" ");
                writeln!(pages, "$ {title}\n{page}").expect("a String takes all");
            }
        }
    });
    insta::assert_snapshot!(pages);
}

#[test]
fn every_command_and_argument_has_help() {
    let mut silent = Vec::new();
    every_command(&mut |words, command| {
        if command.get_about().is_none() {
            silent.push(words.join(" "));
        }
        let arguments = command.get_arguments().filter(|argument| argument.get_help().is_none());
        silent.extend(arguments.map(|argument| format!("{} {}", words.join(" "), argument.get_id())));
    });
    assert_eq!(silent, Vec::<String>::new(), "these have no help");
}

#[test]
fn help_leads_with_three_examples() {
    let sandbox = Sandbox::new();
    for words in [&[][..], &["-h"], &["--help"]] {
        let page = sandbox.fusion(words.iter().copied()).run().assert_code(0).stdout();
        let lines: Vec<&str> = page.lines().take(4).collect();
        assert_eq!(lines[0], "Examples:");
        assert_eq!(lines.iter().filter(|line| line.contains("fusion ")).count(), 3, "{lines:?}");
    }
}

#[test]
fn help_reads_no_configuration() {
    let sandbox = Sandbox::new();
    sandbox.write_config("this is not a configuration");
    sandbox.fusion(["ollama", "run", "--help"]).run().assert_stdout(&help(
        &sandbox,
        &["ollama", "run"],
        "--help",
    ));
}

#[test]
#[cfg(target_os = "linux")]
fn help_fails_if_it_cannot_be_written() {
    let sandbox = Sandbox::new();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("the device");
    let help = sandbox.fusion(["ps", "--help"]).change(|command| _ = command.stdout(full));
    insta::assert_snapshot!(help.run(), @"
    exit 1
    [stderr]
    error: cannot write to standard output
      caused by: No space left on device (os error [ERRNO])
    ");
}

#[test]
fn variables_force_no_colour_on_a_pipe() {
    let sandbox = Sandbox::new();
    let forced = |arguments: &[&str]| {
        let invocation = sandbox.fusion(arguments.iter().copied());
        invocation.env("CLICOLOR_FORCE", "1").env("CLICOLOR", "1").env("TERM", "xterm-256color").run()
    };
    insta::assert_snapshot!(forced(&["--bogus"]), @"
    exit 2
    [stderr]
    error: unexpected argument '--bogus' found

    Usage: fusion [OPTIONS] [COMMAND]

    For more information, try '--help'.
    ");
    for page in [&["--help"][..], &["-h"], &["help", "ps"], &["config"], &["ollama", "run", "--help"]] {
        let finished = forced(page).assert_code(0);
        assert_eq!(finished.stderr(), "", "{page:?}");
        assert!(!finished.stdout().contains('\x1b'), "{page:?}: {}", finished.stdout());
    }
    // The option of fusion asks for colour.
    let coloured = forced(&["--color", "always", "--bogus"]).assert_code(2);
    assert!(coloured.stderr().starts_with("\x1b["), "{coloured}");
    // The last one counts, as for every option.
    let taken_back = forced(&["--color", "always", "--color=never", "--bogus"]).assert_code(2);
    assert!(!taken_back.stderr().contains('\x1b'), "{}", taken_back.stderr());
}

/// An instance that had the name of a command could not be reached.
#[test]
fn every_command_is_a_reserved_name() {
    let mut command = fusion::cli::tree::command(TABLE, &[]);
    command.build();
    let runtimes = |name: &str| TABLE.iter().any(|runtime| runtime.name() == name || runtime.alias() == name);
    let mut unreserved = Vec::new();
    let services = command.get_subcommands().filter(|command| runtimes(command.get_name()));
    let of_services = services.flat_map(Command::get_subcommands);
    for command in
        command.get_subcommands().filter(|command| !runtimes(command.get_name())).chain(of_services)
    {
        for name in [command.get_name()].into_iter().chain(command.get_all_aliases()) {
            if !fusion::core::names::COMMANDS.contains(&name) {
                unreserved.push(name.to_owned());
            }
        }
    }
    assert_eq!(unreserved, Vec::<String>::new());
}
