//! `fusion config edit` without a terminal: the link.

use super::*;

#[test]
fn is_made_in_the_current_directory() {
    let sandbox = Sandbox::without_config();
    let link = sandbox.project().join("fusion.toml");
    let mut edits = Vec::new();
    for arguments in [&["edit"][..], &["edit"], &["edit", "--link"]] {
        edits.push(config(&sandbox, arguments.iter().copied()));
        assert_eq!(link.read_link().expect("a link"), config_file(&sandbox));
    }
    assert_eq!(fs::read_to_string(&link).expect("readable"), text(&sandbox));
    // A link of the same meaning, made by hand.
    fs::remove_file(&link).expect("it is there");
    symlink("../config/config.toml", &link).expect("a link");
    edits.push(config(&sandbox, ["edit"]));
    assert_eq!(link.read_link().expect("a link"), Path::new("../config/config.toml"));
    insta::assert_snapshot!(same_output(edits), @"
    exit 0
    [stdout]
    [ROOT]/project/fusion.toml -> [ROOT]/config/config.toml
    ");
}

#[test]
fn is_made_in_the_project_root() {
    let sandbox = Sandbox::without_config();
    let root = sandbox.root().join("elsewhere");
    fs::create_dir(&root).expect("writable");
    let edit =
        |root: &Path| sandbox.fusion(["config", "edit"]).env("FUSION_PROJECT_ROOT", root).run_in_process();
    for value in [root.as_path(), Path::new("../elsewhere")] {
        edit(value).assert_code(0);
        assert_eq!(root.join("fusion.toml").read_link().expect("a link"), config_file(&sandbox));
        fs::remove_file(root.join("fusion.toml")).expect("it is there");
    }
    insta::assert_snapshot!(edit(&sandbox.root().join("missing")), @"
    exit 1
    [stderr]
    error: cannot make the link [ROOT]/missing/fusion.toml
      caused by: No such file or directory (os error [ERRNO])
    ");
}

#[test]
fn replaces_nothing_but_its_own_link() {
    let sandbox = Sandbox::without_config();
    let link = sandbox.project().join("fusion.toml");
    fs::write(&link, "theirs").expect("writable");
    let file = config(&sandbox, ["edit"]);
    assert_eq!(fs::read_to_string(&link).expect("readable"), "theirs");
    fs::remove_file(&link).expect("it is there");
    symlink("/nowhere", &link).expect("a link");
    let other_link = config(&sandbox, ["edit"]);
    assert_eq!(link.read_link().expect("a link"), Path::new("/nowhere"));
    fs::remove_file(&link).expect("it is there");
    fs::create_dir(&link).expect("writable");
    let directory = config(&sandbox, ["edit"]);
    insta::assert_snapshot!(same_output([file, other_link, directory]), @"
    exit 1
    [stderr]
    error: [ROOT]/project/fusion.toml exists and is not a link to [ROOT]/config/config.toml
    hint: move it away, or set FUSION_PROJECT_ROOT to another directory
    ");
}
