//! Instances from the command line: `templates`, `create`, `remove`, and the other commands over them.

mod support;

use serde_json::json;
use support::ports::Port;
use support::{Sandbox, command_line, fake_runtime, processes};

/// A configuration with a template of any program, and one of Ollama, both played by the fake runtime.
struct Instances {
    sandbox: Sandbox,
    ports: [Port; 3],
}

impl Instances {
    fn new() -> Self {
        let instances = Self { sandbox: Sandbox::new(), ports: [Port::free(), Port::free(), Port::free()] };
        instances.write("");
        instances
    }

    /// Writes the templates, and `more` below them.
    fn write(&self, more: &str) {
        self.sandbox.configure("", "");
        let config = std::fs::read_to_string(self.file()).expect("the configuration");
        let fake = fake_runtime();
        self.sandbox.write_config(&format!(
            "{config}\n# Pictures.\n[templates.pictures]\ndisplay_name = \"Pictures\"\ndescription = \"Makes pictures\"\n\
             start_command = \"{fake} ollama quiet --port {{port}}\"\nhealth_endpoint = \"/api/tags\"\n\
             category = \"image\"\nport_range = [{}, {}]\n\n{more}",
            self.port(0).min(self.port(1)).min(self.port(2)),
            self.port(0).max(self.port(1)).max(self.port(2)),
        ));
    }

    fn file(&self) -> std::path::PathBuf {
        self.sandbox.config_dir().join("config.toml")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).expect("the configuration")
    }

    fn port(&self, index: usize) -> u16 {
        self.ports[index].number()
    }

    fn run(&self, line: &str) -> support::Finished {
        let masked = (0..3).fold(self.sandbox.fusion(line.split(' ')), |command, index| {
            command.mask(format!(":{}", self.port(index)), format!(":[PORT{index}]"))
        });
        masked.run()
    }
}

#[test]
fn create_appends_a_table_and_keeps_comments() {
    let here = Instances::new();
    let before = here.text();
    let line = format!(
        "create dev --template pictures --port {} --dir sub/.. --tag image --tag dev --env A=1 --env B=x=y",
        here.port(0)
    );
    insta::assert_snapshot!(here.run(&line), @"
    exit 0
    [stdout]
    dev is an instance of pictures
    [stderr]
    hint: start it: fusion dev up
    ");
    let after = here.text();
    let added = after.strip_prefix(&before).expect("what was there stays");
    insta::assert_snapshot!(here.sandbox.normalized(&added.replace(&here.port(0).to_string(), "[PORT]")), @r#"

    [instances.dev]
    template = "pictures"
    port = [PORT]
    working_dir = "[ROOT]/project/sub/.."
    tags = ["image", "dev"]
    env = { A = "1", B = "x=y" }
    "#);
    let ps = here.run("ps dev --json").assert_code(0).json();
    assert_eq!(ps[0]["tags"], json!(["image", "dev"]));
    assert_eq!((&ps[0]["template"], &ps[0]["runtime"]), (&json!("pictures"), &json!(null)));
}

#[test]
fn create_writes_nothing_when_it_refuses() {
    let here = Instances::new();
    here.write(&format!(
        "[templates.single]\nstart_command = \"x\"\ndefault_port = 1\nsupports_multiple = false\n\
         [instances.only]\ntemplate = \"single\"\n[instances.dev]\ntemplate = \"pictures\"\nport = {}\n",
        here.port(0)
    ));
    let before = here.text();
    let refused = [
        "create dev --template pictures",
        "create Bad --template pictures",
        "create up --template pictures",
        "create mx --template pictures",
        "create other --template picture",
        "create other --template single",
        "create other --template pictures --port 1",
        "create other --template pictures --port 0",
        "create other --template pictures --env A",
        "create other --template pictures --env =1",
        "create other",
    ];
    for line in refused {
        here.run(line).assert_code(2);
        assert_eq!(here.text(), before, "{line}");
    }
    insta::assert_snapshot!(here.run(refused[0]), @"
    exit 2
    [stderr]
    error: there is an instance dev already
    hint: choose another name; list the services: fusion ps
    ");
    insta::assert_snapshot!(here.run(refused[1]), @"
    exit 2
    [stderr]
    error: `instances.Bad`: the name of an instance has 1 to 32 lowercase letters, digits and hyphens, no hyphen first
    ");
    insta::assert_snapshot!(here.run(refused[2]), @"
    exit 2
    [stderr]
    error: `instances.up`: this is a command of fusion
    ");
    insta::assert_snapshot!(here.run(refused[4]), @"
    exit 2
    [stderr]
    error: `instances.other.template`: there is no template `picture`; did you mean `pictures`?
    ");
}

#[test]
fn create_up_starts_what_it_made() {
    let here = Instances::new();
    let line = format!("create coder --template ollama --port {} --model llama3.2:3b --up", here.port(0));
    insta::assert_snapshot!(here.run(&line), @"
    exit 0
    [stdout]
    coder is an instance of ollama
    coder is up at http://127.0.0.1:[PORT0] (pid [PID])
    ");
    insta::assert_snapshot!(here.run("coder run Hello"), @"
    exit 0
    [stdout]
    Hello from the fake runtime.
    ");
    let line =
        format!("create dead --template pictures --port {} --env FAKE_RUNTIME=die=3 --up", here.port(1));
    here.run(&line).assert_code(6);
    assert!(here.text().contains("[instances.dead]"), "a failed start does not undo it");
    here.run("down").assert_code(0);
}

#[test]
fn remove_refuses_while_it_runs() {
    let here = Instances::new();
    here.write(&format!("[instances.dev]\ntemplate = \"pictures\"\nport = {}\n", here.port(0)));
    here.run("dev up").assert_code(0);
    let before = here.text();
    insta::assert_snapshot!(here.run("remove dev --yes"), @"
    exit 1
    [stderr]
    error: dev is running (pid [PID])
    hint: stop it first: fusion dev down
    ");
    insta::assert_snapshot!(here.run("remove mlx --yes"), @"
    exit 2
    [stderr]
    error: mlx is a built-in service, which cannot be removed
    hint: restore its defaults: fusion config unset mlx_server.KEY
    ");
    here.run("dev down").assert_code(0);
    insta::assert_snapshot!(here.run("remove dev"), @"
    exit 2
    [stderr]
    error: not removed: there is no terminal to ask for confirmation on
    hint: confirm it: fusion remove dev --yes
    ");
    assert_eq!(here.text(), before);
    // What a server of many models is told of their context lengths.
    std::fs::write(here.sandbox.file("dev", "models-1.ini"), "").expect("the sandbox is writable");
    insta::assert_snapshot!(here.run("remove dev --yes"), @"
    exit 0
    [stdout]
    dev is removed
    ");
    assert!(!here.text().contains("instances"), "{}", here.text());
    assert!(here.text().contains("# Pictures."));
    assert!(!here.sandbox.config_dir().join("dev").exists());
    insta::assert_snapshot!(here.run("remove dev --yes"), @"
    exit 2
    [stderr]
    error: there is no service dev
    hint: list the services: fusion ps
    ");
}

#[test]
fn remove_can_keep_the_log() {
    let here = Instances::new();
    here.write(&format!("[instances.dev]\ntemplate = \"pictures\"\nport = {}\n", here.port(0)));
    here.run("dev up").assert_code(0);
    here.run("dev down").assert_code(0);
    let refused = here.run("remove dev --keep-log").assert_code(2);
    assert!(refused.stderr().contains("fusion remove dev --yes --keep-log\n"), "{refused}");
    here.run("remove dev --yes --keep-log").assert_code(0);
    let left: Vec<_> =
        std::fs::read_dir(here.sandbox.config_dir().join("dev")).expect("its directory").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(here.sandbox.config_dir().join("dev/dev.log").exists());
}

#[test]
fn templates_lists_built_in_ones_and_others() {
    let here = Instances::new();
    here.write(&format!("[instances.dev]\ntemplate = \"pictures\"\nport = {}\n", here.port(0)));
    let ports = (0..3).map(|index| here.port(index));
    let first = ports.clone().min().expect("three").to_string();
    let last = ports.max().expect("three").to_string();
    let masked = |line: &[&str]| {
        here.sandbox
            .fusion(line.iter().copied())
            .mask(first.clone(), "FIRST")
            .mask(last.clone(), "LAST")
            .run()
    };
    insta::assert_snapshot!(masked(&["templates"]), @"
    exit 0
    [stdout]
    TEMPLATE  RUNTIME  PORT         SERVICES  DESCRIPTION
    ollama    ollama   11434        ollama    Ollama
    mlx       mlx      8080         mlx       MLX
    llama     llama    8081         llama     llama.cpp
    pictures  -        FIRST-LAST  dev       Makes pictures
    ");
    insta::assert_snapshot!(masked(&["templates", "pictures", "--json"]), @r#"
    exit 0
    [stdout]
    [
      {
        "name": "pictures",
        "runtime": null,
        "display_name": "Pictures",
        "description": "Makes pictures",
        "category": "image",
        "default_port": null,
        "port_range": [
          FIRST,
          LAST
        ],
        "instances": [
          "dev"
        ]
      }
    ]
    "#);
    insta::assert_snapshot!(masked(&["templates", "picture"]), @"
    exit 2
    [stderr]
    error: there is no template picture; did you mean pictures?
    hint: list the templates: fusion templates
    ");
    let all = masked(&["templates", "--json"]).json();
    assert_eq!(all.as_array().map(Vec::len), Some(4));
    assert_eq!((&all[1]["runtime"], &all[1]["instances"]), (&json!("mlx"), &json!(["mlx"])));
}

/// Services of several kinds under one command.
#[test]
fn services_of_several_kinds_are_one_fleet() {
    let here = Instances::new();
    let fake = fake_runtime();
    here.write(&format!(
        "[templates.bare]\nstart_command = \"{fake} ollama quiet --port {{port}}\"\n\n\
         [instances.dev]\ntemplate = \"pictures\"\nport = {}\ntags = [\"image\"]\nauto_start = true\n\n\
         [instances.plain]\ntemplate = \"bare\"\nport = {}\ntags = [\"image\"]\n\n\
         [instances.coder]\ntemplate = \"ollama\"\nport = {}\ntags = [\"code\"]\n{}\n",
        here.port(0),
        here.port(1),
        here.port(2),
        command_line("ollama", &["quiet"]),
    ));
    let names = |line: &str| -> Vec<String> {
        let json = here.run(line).assert_code(0).json();
        let services = json.as_array().expect("an array");
        let key = |service: &serde_json::Value| {
            service["name"].as_str().or(service["service"].as_str()).map(str::to_owned)
        };
        services.iter().filter_map(key).collect()
    };
    assert_eq!(names("up --json"), ["dev"]);
    assert_eq!(names("up --tag image --json"), ["dev", "plain"]);
    assert_eq!(names("up coder mlx --json"), ["coder", "mlx"]);
    assert_eq!(names("ps --state ready --json"), ["mlx", "dev", "plain", "coder"]);
    assert_eq!(names("ps --template ollama --json"), ["ollama", "coder"]);
    let metrics = here.run("metrics --json").assert_code(0).json();
    assert_eq!(metrics["services"].as_array().map(Vec::len), Some(4));
    assert_eq!(names("restart --tag image --json"), ["dev", "plain"]);
    assert_eq!(names("down --template bare --json"), ["plain"]);
    assert_eq!(names("down --json"), ["mlx", "dev", "coder"]);
}

/// Twenty programs that are ready at the same moment are started at once.
#[test]
fn programs_are_started_side_by_side() {
    let here = Instances::new();
    let go = here.sandbox.root().join("go");
    let fake = fake_runtime();
    let instance = |index: usize| {
        format!(
            "[instances.dev{index}]\ntemplate = \"held\"\nport = {}\nauto_start = true\n",
            here.port(index)
        )
    };
    here.write(&format!(
        "[templates.held]\nstart_command = \"{fake} ollama print=started bind-when={} --port {{port}}\"\n{}{}{}",
        go.display(),
        instance(0),
        instance(1),
        instance(2)
    ));
    let up = here.sandbox.fusion(["up"]).start();
    for index in 0..3 {
        let log = here.sandbox.config_dir().join(format!("dev{index}/dev{index}.log"));
        support::wait_until("every one was started before any is ready", || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("started"))
        });
    }
    std::fs::write(&go, "").expect("the sandbox is writable");
    up.finish().assert_code(0);
    let pids: Vec<i32> = (0..3).filter_map(|index| here.sandbox.pid(&format!("dev{index}"))).collect();
    assert!(pids.len() == 3 && pids.into_iter().all(processes::lives));
    here.run("down").assert_code(0);
}
