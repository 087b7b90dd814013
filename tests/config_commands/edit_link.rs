//! `fusion config edit` without a terminal: the link.

use super::*;

const SAID: &str = "[ROOT]/project/fusion.toml -> [ROOT]/config/config.toml\n";

#[test]
fn is_made_in_the_current_directory_and_kept() {
    let sandbox = Sandbox::without_config();
    let link = sandbox.project().join("fusion.toml");
    for arguments in [&["edit"][..], &["edit"], &["edit", "--link"]] {
        config(&sandbox, arguments.iter().copied()).assert(0, SAID, "");
        assert_eq!(link.read_link().expect("a link"), config_file(&sandbox));
    }
    assert_eq!(fs::read_to_string(&link).expect("readable"), text(&sandbox));
    // A link of the same meaning, made by hand.
    fs::remove_file(&link).expect("it is there");
    symlink("../config/config.toml", &link).expect("a link");
    config(&sandbox, ["edit"]).assert(0, SAID, "");
    assert_eq!(link.read_link().expect("a link"), Path::new("../config/config.toml"));
}

#[test]
fn is_made_in_the_project_root() {
    let sandbox = Sandbox::without_config();
    let root = sandbox.root().join("elsewhere");
    fs::create_dir(&root).expect("writable");
    for value in [root.as_path(), Path::new("../elsewhere")] {
        let edit = sandbox.fusion(["config", "edit"]).env("FUSION_PROJECT_ROOT", value);
        edit.run().assert_code(0);
        assert_eq!(root.join("fusion.toml").read_link().expect("a link"), config_file(&sandbox));
        fs::remove_file(root.join("fusion.toml")).expect("it is there");
    }
    let missing = sandbox.root().join("missing");
    sandbox.fusion(["config", "edit"]).env("FUSION_PROJECT_ROOT", &missing).run().assert(
            1,
            "",
            "error: cannot make the link [ROOT]/missing/fusion.toml\n  caused by: No such file or directory (os error 2)\n",
        );
}

#[test]
fn never_replaces_what_is_not_its_own() {
    let sandbox = Sandbox::without_config();
    let link = sandbox.project().join("fusion.toml");
    let stderr = "error: [ROOT]/project/fusion.toml is there already, and is not a link to [ROOT]/config/config.toml\n\
                      hint: move it away, or set FUSION_PROJECT_ROOT to another directory\n";
    fs::write(&link, "theirs").expect("writable");
    config(&sandbox, ["edit"]).assert(1, "", stderr);
    assert_eq!(fs::read_to_string(&link).expect("readable"), "theirs");
    fs::remove_file(&link).expect("it is there");
    symlink("/nowhere", &link).expect("a link");
    config(&sandbox, ["edit"]).assert(1, "", stderr);
    assert_eq!(link.read_link().expect("a link"), Path::new("/nowhere"));
    fs::remove_file(&link).expect("it is there");
    fs::create_dir(&link).expect("writable");
    config(&sandbox, ["edit"]).assert(1, "", stderr);
}
