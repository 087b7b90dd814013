//! `fusion config edit`: the file in an editor, or a link to it in the project.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::{keyboard, signals};
use crate::core::config::{Config, ConfigError, edit as change};
use crate::core::files;

/// The link that is made in the project.
const LINK: &str = "fusion.toml";

/// Open the file in your editor, or link to it from your project
///
/// On a terminal, opens a copy with `$VISUAL` or `$EDITOR`, and replaces the file when the copy is valid. Without a
/// terminal or an editor, or with `--link`, makes a symbolic link `fusion.toml` to the file in `$FUSION_PROJECT_ROOT`
/// or the current directory.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigEditArgs {
    /// Make the link even if there is an editor
    #[arg(long)]
    link: bool,
}

pub(super) fn run(context: &Context, args: &ConfigEditArgs) -> Result<(), Failure> {
    let environment = &context.environment;
    let on_terminal = environment.stdin_is_terminal && environment.stdout_is_terminal;
    if args.link || !on_terminal {
        return link(context);
    }
    if let Some(editor) = &environment.editor {
        return in_editor(context, editor);
    }
    context.ui.note("neither VISUAL nor EDITOR is set: making a link instead of opening an editor");
    link(context)
}

fn link(context: &Context) -> Result<(), Failure> {
    let file = context.paths.config_file();
    if let (_, Some(error @ ConfigError::Create { .. })) = Config::load_sound(&file, context.table) {
        return Err(error.into());
    }
    let directory = project_root(context)?;
    let link = directory.join(LINK);
    let said = format!("{} -> {}\n", link.display(), file.display());
    match std::os::unix::fs::symlink(&file, &link) {
        Ok(()) => context.ui.result(&said),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("make the link", &link, &error))
        }
        Err(_) if leads_to(&link, &file) => context.ui.result(&said),
        Err(_) => Err(Failure::new(
            Exit::Failed,
            format!("{} exists and is not a link to {}", link.display(), file.display()),
        )
        .hint("move it away, or set FUSION_PROJECT_ROOT to another directory")),
    }
}

fn project_root(context: &Context) -> Result<PathBuf, Failure> {
    context.environment.project_directory().ok_or_else(|| {
        Failure::new(Exit::Failed, "the current directory no longer exists")
            .hint("change to another directory, or set FUSION_PROJECT_ROOT to an absolute path")
    })
}

fn leads_to(link: &Path, file: &Path) -> bool {
    let Ok(target) = link.read_link() else { return false };
    target == file
        || link.canonicalize().is_ok_and(|target| file.canonicalize().is_ok_and(|file| target == file))
}

fn in_editor(context: &Context, editor: &OsStr) -> Result<(), Failure> {
    let file = context.paths.config_file();
    let (before, unmade) = Config::source(&file, context.table)?;
    if let Some(error) = unmade {
        return Err(error.into());
    }
    let copy = copy_for_editor(&file, &before)?;
    let result = edit(context, editor, &copy, &before).and_then(|after| {
        let Some(after) = after else {
            context.ui.note("nothing was changed");
            return Ok(());
        };
        change::replace(&file, &before, &after)?;
        context.ui.result(&format!("{} was changed\n", file.display()))
    });
    // What was written is kept when it was not taken over.
    if result.is_err() && std::fs::read(&copy).is_ok_and(|written| written != before) {
        return result.map_err(|failure| failure.hint(format!("your changes are in {}", copy.display())));
    }
    files::remove(&copy)?;
    result
}

/// Has the copy edited until it is valid; returns `None` when nothing was changed.
fn edit(context: &Context, editor: &OsStr, copy: &Path, before: &[u8]) -> Result<Option<String>, Failure> {
    loop {
        open(context, editor, copy)?;
        let after = std::fs::read(copy).map_err(|error| failed("read", copy, &error))?;
        if after == before {
            return Ok(None);
        }
        let error = match Config::validate(copy, after, context.table) {
            Ok(text) => return Ok(Some(text)),
            Err(error) => error,
        };
        context.ui.failure(&Failure::of_config(&error, usize::MAX).hint_or_none(None));
        if context.ask("Edit it again?", true) != Some(true) {
            let file = context.paths.config_file();
            return Err(Failure::new(Exit::Usage, format!("{} was not changed", file.display())));
        }
    }
}

/// A private copy next to the file, with a name that editors know as TOML.
fn copy_for_editor(file: &Path, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let copy = tempfile::Builder::new().prefix("config.edit.").suffix(".toml").tempfile_in(directory);
    let kept = copy.and_then(|copy| {
        std::fs::write(copy.path(), bytes)?;
        copy.into_temp_path().keep().map_err(io::Error::from)
    });
    kept.map_err(|error| failed("make a copy in", directory, &error))
}

/// Through a shell, as git does it: the variable may hold arguments and quotes.
pub(in crate::cli::commands) fn open(context: &Context, editor: &OsStr, copy: &Path) -> Result<(), Failure> {
    let mut script = editor.to_owned();
    script.push(" \"$@\"");
    // Ctrl-C belongs to the editor while it runs.
    let signals = signals::remember();
    let _lent = keyboard::lend();
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).arg(editor).arg(copy).stdin(context.ui.input().for_program());
    let status = context
        .ui
        .output()
        .duplicate()
        .and_then(|output| command.stdout(output).stderr(context.ui.error().duplicate()?).status());
    drop(signals);
    if matches!(signals::cause(&context.cancel), Some(Signal::SIGTERM | Signal::SIGHUP)) {
        return Err(Failure::new(Exit::Interrupted, ""));
    }
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let editor = editor.to_string_lossy();
            Err(Failure::new(Exit::Failed, format!("the editor `{editor}` failed: {status}")))
        }
        Err(error) => Err(failed("run", Path::new("/bin/sh"), &error)),
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Failure {
    let mut failure = Failure::new(Exit::Failed, format!("cannot {action} {}", path.display()));
    failure.causes.push(error.to_string());
    failure
}
