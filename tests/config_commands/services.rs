//! Templates and instances, the gateway and models in the file.

use super::config;
use super::faults::problems;
use super::support::{Sandbox, table, three_ports};

/// A template and an instance of it, each with more lines.
fn with(template: &str, instance: &str) -> String {
    format!("[templates.comfy]\n{template}[instances.x]\ntemplate = 'comfy'\n{instance}")
}

#[test]
fn templates_need_one_command() {
    let problems = problems(&[
        "[templates.comfy]\ndefault_port = 1\n",
        "[templates.comfy]\nstart_command = 'a'\ncommand = ['b']\n",
        "[templates.comfy]\nstart_command = ''\n",
        "[templates.comfy]\nstart_command = \"a 'b\"\n",
        "[templates.comfy]\nstart_command = 'A=1'\n",
        "[templates.comfy]\ncommand = []\n",
        "[templates.comfy]\nstart_comand = 'a'\n",
        // Its instances have no problem for that.
        &with("default_port = 1\n", ""),
    ]);
    insta::assert_snapshot!(problems, @r#"
    "[templates.comfy]\ndefault_port = 1\n"
      1:12: `templates.comfy` has no `start_command` or `command`
    "[templates.comfy]\nstart_command = 'a'\ncommand = ['b']\n"
      3:11: `templates.comfy.command` cannot be set: `templates.comfy.start_command` is set already
    "[templates.comfy]\nstart_command = ''\n"
      2:17: `templates.comfy.start_command`: expected a command line, found the string "": it names no program
    "[templates.comfy]\nstart_command = \"a 'b\"\n"
      2:17: `templates.comfy.start_command`: expected a command line, found the string "a 'b": a quote is not closed
    "[templates.comfy]\nstart_command = 'A=1'\n"
      2:17: `templates.comfy.start_command`: expected a command line, found the string "A=1": it names no program
    "[templates.comfy]\ncommand = []\n"
      2:11: `templates.comfy.command`: expected an array of strings that begins with a program, found an array
    "[templates.comfy]\nstart_comand = 'a'\n"
      2:1: unknown key `templates.comfy.start_comand`; did you mean `templates.comfy.start_command`?
    "[templates.comfy]\ndefault_port = 1\n[instances.x]\ntemplate = 'comfy'\n"
      1:12: `templates.comfy` has no `start_command` or `command`
    "#);
}

#[test]
fn placeholders_are_checked() {
    let start = "default_port = 1\nstart_command = 'a'\n";
    let texts = [
        with("default_port = 1\nstart_command = 'a --port {prot}'\n", ""),
        with("default_port = 1\ncommand = ['a', '${PROJECT_ROT}/x']\n", ""),
        with("default_port = 1\ncommand = ['a', 'b', '{what_is_this}']\n", ""),
        with("default_port = 1\nstart_command = 'a {pid}'\n", ""),
        with(&format!("{start}health_endpoint = 'http://localhost:{{port}}/{{working_dir}}'\n"), ""),
        with(&format!("{start}env = {{ A = '{{hots}}' }}\n"), ""),
        with(start, "working_dir = '{working_dir}/x'\n"),
        with(start, "args = ['${HOEM}']\n"),
        with(start, "model = 'x-{pid}'\n"),
        with(start, "model = '{name}'\n"),
        with(start, "env = { A = '{pid}' }\n"),
    ];
    insta::assert_snapshot!(problems(&texts.each_ref().map(String::as_str)), @r#"
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a --port {prot}'\n[instances.x]\ntemplate = 'comfy'\n"
      3:27: `templates.comfy.start_command`: there is no placeholder `{prot}`; did you mean `{port}`?
    "[templates.comfy]\ndefault_port = 1\ncommand = ['a', '${PROJECT_ROT}/x']\n[instances.x]\ntemplate = 'comfy'\n"
      3:18: `templates.comfy.command`: there is no placeholder `${PROJECT_ROT}`; did you mean `${PROJECT_ROOT}`?
    "[templates.comfy]\ndefault_port = 1\ncommand = ['a', 'b', '{what_is_this}']\n[instances.x]\ntemplate = 'comfy'\n"
      3:23: `templates.comfy.command`: there is no placeholder `{what_is_this}`; valid here: `{port}`, `{host}`, `{working_dir}`, `{config}`, `{name}`, `{model}`, `${PROJECT_ROOT}`, `${HOME}`
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a {pid}'\n[instances.x]\ntemplate = 'comfy'\n"
      3:20: `templates.comfy.start_command`: `{pid}` is known only in `stop_command`, while the server runs
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\nhealth_endpoint = 'http://localhost:{port}/{working_dir}'\n[instances.x]\ntemplate = 'comfy'\n"
      4:44: `templates.comfy.health_endpoint`: `{working_dir}` cannot stand for something that depends on it
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\nenv = { A = '{hots}' }\n[instances.x]\ntemplate = 'comfy'\n"
      4:14: `templates.comfy.env.A`: there is no placeholder `{hots}`; did you mean `{host}`?
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\n[instances.x]\ntemplate = 'comfy'\nworking_dir = '{working_dir}/x'\n"
      6:16: `instances.x.working_dir`: `{working_dir}` cannot stand for something that depends on it
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\n[instances.x]\ntemplate = 'comfy'\nargs = ['${HOEM}']\n"
      6:10: `instances.x.args`: there is no placeholder `${HOEM}`; did you mean `${HOME}`?
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\n[instances.x]\ntemplate = 'comfy'\nmodel = 'x-{pid}'\n"
      6:12: `instances.x.model`: `{pid}` is known only in `stop_command`, while the server runs
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\n[instances.x]\ntemplate = 'comfy'\nmodel = '{name}'\n"
      6:10: `instances.x.model`: `{name}` is not replaced here
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\n[instances.x]\ntemplate = 'comfy'\nenv = { A = '{pid}' }\n"
      6:14: `instances.x.env.A`: `{pid}` is known only in `stop_command`, while the server runs
    "#);
    let good = with(
        "default_port = 1\nstart_command = '''a '{\"json\": 1}' {port}{host}{name}{model}{config}{working_dir} ${HOME}'''\n\
         stop_command = 'b {pid}'\nhealth_endpoint = '/{name}'\n",
        "working_dir = '${PROJECT_ROOT}/{name}'\n",
    );
    let sandbox = Sandbox::without_config();
    sandbox.write_config(&good);
    config(&sandbox, ["check"]).assert_code(0);
}

/// A command of an instance that the file does not show tells why.
#[test]
fn an_instance_behind_a_problem_is_explained() {
    let sandbox = Sandbox::without_config();
    let shown = ["[instances.coder]\ntemplate = 'mlxx'\n", "[instances.coder\n"].map(|text| {
        sandbox.write_config(text);
        (text.lines().next().unwrap_or_default().to_owned(), sandbox.fusion(["-q", "coder", "up"]).run())
    });
    insta::assert_snapshot!(table(shown), @"
    # [instances.coder]
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml:2:12: `instances.coder.template`: there is no template `mlxx`; did you mean `mlx`?
    hint: edit the file: fusion config edit
    # [instances.coder
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml:1:17: unclosed table, expected `]`
    hint: edit the file: fusion config edit
    ");
    // Words of fusion's own are told as ever.
    let wrong = sandbox.fusion(["ollama", "upp"]).run().assert_code(2);
    assert!(wrong.stderr().contains("unrecognized subcommand 'upp'"), "{wrong}");
}

/// The hint for a port that is chosen at the start names one that the template allows and nobody else has.
#[test]
fn hints_for_ports_name_spare_ones() {
    let sandbox = Sandbox::without_config();
    let (_held, first) = three_ports();
    sandbox.write_config(&format!(
        "[templates.comfy]\nstart_command = 'a'\nport_range = [{first}, {}]\n\
         [instances.x]\ntemplate = 'comfy'\n[instances.y]\ntemplate = 'comfy'\nport = {first}\n\
         [instances.coder]\ntemplate = 'mlx'\n",
        first + 2
    ));
    let hint = |name: &str| {
        let key = format!("instances.{name}.port");
        let stderr = config(&sandbox, ["get", &key]).assert_code(1).stderr();
        let start =
            format!("error: `{key}` is not set, and has no default\nhint: set it: fusion config set {key} ");
        stderr.strip_prefix(&start).and_then(|port| port.trim_end().parse::<u16>().ok()).expect(&stderr)
    };
    assert_eq!(hint("x"), first + 1);
    // Those before are the ports of the built-in services; another program may listen on one of these.
    assert!((8082..8180).contains(&hint("coder")));
}

#[test]
fn ports_of_instances_are_within_their_range() {
    let start = "start_command = 'a'\n";
    let texts = [
        with(&format!("{start}port_range = [8188, 8199]\n"), "port = 8200\n"),
        with(&format!("{start}port_range = [8188, 8199]\ndefault_port = 8000\n"), ""),
        with(&format!("{start}port_range = [8199, 8188]\n"), "port = 1\n"),
        with(&format!("{start}port_range = [0, 8]\n"), "port = 1\n"),
        with(start, ""),
    ];
    insta::assert_snapshot!(problems(&texts.each_ref().map(String::as_str)), @r#"
    "[templates.comfy]\nstart_command = 'a'\nport_range = [8188, 8199]\n[instances.x]\ntemplate = 'comfy'\nport = 8200\n"
      6:8: `instances.x.port`: expected a port from 8188 to 8199, the `port_range` of `[templates.comfy]`, found the number 8200
    "[templates.comfy]\nstart_command = 'a'\nport_range = [8188, 8199]\ndefault_port = 8000\n[instances.x]\ntemplate = 'comfy'\n"
      4:16: `templates.comfy.default_port`: expected a port of `port_range`, 8188 to 8199, found the number 8000
    "[templates.comfy]\nstart_command = 'a'\nport_range = [8199, 8188]\n[instances.x]\ntemplate = 'comfy'\nport = 1\n"
      3:14: `templates.comfy.port_range`: expected an array of two ports from 1 to 65535, the smaller one first, found an array
    "[templates.comfy]\nstart_command = 'a'\nport_range = [0, 8]\n[instances.x]\ntemplate = 'comfy'\nport = 1\n"
      3:14: `templates.comfy.port_range`: expected an array of two ports from 1 to 65535, the smaller one first, found an array
    "[templates.comfy]\nstart_command = 'a'\n[instances.x]\ntemplate = 'comfy'\n"
      3:12: `instances.x` has no `port`
    "#);
}

#[test]
fn instances_are_checked() {
    let problems = problems(&[
        "[instances.x]\nport = 1\n",
        "[instances.x]\ntemplate = 'olama'\n",
        "[instances.x]\ntemplate = 5\n",
        "[instances.X]\ntemplate = 'mlx'\n",
        "[instances.up]\ntemplate = 'mlx'\n",
        "[instances.lc]\ntemplate = 'mlx'\n",
        "[instances.data]\ntemplate = 'mlx'\n",
        "[instances.x]\ntemplate = 'mlx'\nprot = 1\n",
        "[instances.x]\ntemplate = 'mlx'\nmodels_dir = '/x'\n",
        "[instances.x]\ntemplate = 'mlx'\nseed = 1\n",
        "[instances.x]\ntemplate = 'mlx'\n[instances.x.run]\nport = 1\n",
        "[instances.x]\ntemplate = 'ollama'\nenv = { OLLAMA_HOST = 'x' }\n",
        &with("default_port = 1\nstart_command = 'a'\n", "command = ['x']\n"),
        &with("default_port = 1\nstart_command = 'a'\n", "[instances.x.run]\nseed = 1\n"),
        &with(
            "default_port = 1\nstart_command = 'a'\nsupports_multiple = false\n",
            "[instances.y]\ntemplate = 'comfy'\n",
        ),
        "default_service = 'olama'\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "[instances.x]\nport = 1\n"
      1:12: `instances.x` has no `template`
    "[instances.x]\ntemplate = 'olama'\n"
      2:12: `instances.x.template`: there is no template `olama`; did you mean `ollama`?
    "[instances.x]\ntemplate = 5\n"
      2:12: `instances.x.template`: expected the name of a template, found the number 5
    "[instances.X]\ntemplate = 'mlx'\n"
      1:12: `instances.X`: the name of an instance has 1 to 32 lowercase letters, digits and hyphens, no hyphen first
    "[instances.up]\ntemplate = 'mlx'\n"
      1:12: `instances.up`: this is a command of fusion
    "[instances.lc]\ntemplate = 'mlx'\n"
      1:12: `instances.lc`: this is a built-in service
    "[instances.data]\ntemplate = 'mlx'\n"
      1:12: `instances.data`: fusion keeps its own data in a directory of this name
    "[instances.x]\ntemplate = 'mlx'\nprot = 1\n"
      3:1: unknown key `instances.x.prot`; did you mean `instances.x.port`?
    "[instances.x]\ntemplate = 'mlx'\nmodels_dir = '/x'\n"
      3:1: unknown key `instances.x.models_dir`; valid here: `template`, `working_dir`, `tags`, `version`, `git_branch`, `host`, `port`, `model`, `command`, `args`, `env`, `startup_timeout`, `stop_timeout`, `auto_start`, `log_max_size`, `log_keep`, `idle_timeout`, `exclusive`, `on_demand`, `restart`, `keep_awake`
    "[instances.x]\ntemplate = 'mlx'\nseed = 1\n"
      3:1: unknown key `instances.x.seed`; did you mean `instances.x.run.seed`?
    "[instances.x]\ntemplate = 'mlx'\n[instances.x.run]\nport = 1\n"
      4:1: unknown key `instances.x.run.port`; did you mean `instances.x.port`?
    "[instances.x]\ntemplate = 'ollama'\nenv = { OLLAMA_HOST = 'x' }\n"
      3:9: `instances.x.env.OLLAMA_HOST` cannot be set: `instances.x.host` and `instances.x.port` say where the server listens
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\n[instances.x]\ntemplate = 'comfy'\ncommand = ['x']\n"
      6:1: unknown key `instances.x.command`; valid here: `template`, `working_dir`, `tags`, `version`, `git_branch`, `host`, `port`, `model`, `args`, `env`, `startup_timeout`, `stop_timeout`, `auto_start`, `log_max_size`, `log_keep`, `idle_timeout`, `exclusive`, `on_demand`, `restart`
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\n[instances.x]\ntemplate = 'comfy'\n[instances.x.run]\nseed = 1\n"
      6:14: unknown key `instances.x.run`; valid here: `template`, `working_dir`, `tags`, `version`, `git_branch`, `host`, `port`, `model`, `args`, `env`, `startup_timeout`, `stop_timeout`, `auto_start`, `log_max_size`, `log_keep`, `idle_timeout`, `exclusive`, `on_demand`, `restart`
    "[templates.comfy]\ndefault_port = 1\nstart_command = 'a'\nsupports_multiple = false\n[instances.x]\ntemplate = 'comfy'\n[instances.y]\ntemplate = 'comfy'\n"
      7:12: `instances.y`: `[templates.comfy]` has `supports_multiple = false`, and `x` is its instance
    "default_service = 'olama'\n"
      1:19: `default_service`: there is no service `olama`; did you mean `ollama`?
    "#);
}

#[test]
fn gateway_and_models_are_checked() {
    let problems = problems(&[
        "[gateway]\nhost = 'http://x'\n",
        "[gateway]\nidle_timeout = -1\n",
        "[gateway]\nmax_memory = '0%'\n",
        "[gateway]\nmax_memory = '101%'\n",
        "[gateway]\nmax_memory = 'much'\n",
        "[gateway]\ntoken = 5\n",
        "[gateway]\ncors_origins = ['localhost:3000']\n",
        "[gateway]\ncors_origins = ['http://x/']\n",
        "[gateway]\nhosts = ['a b']\n",
        "[models.x]\ntemprature = 1\n",
        "[models.x]\nkeep_alive = 'long'\n",
        "[models.x]\ncontext = 0\n",
        "[mlx_server]\nrestart = 'always'\n",
        "[mlx_server]\nkeep_awake = true\n",
        "[mlx_server]\nidle_timeout = 'x'\n",
        "[mlx_server]\nexclusive = ''\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "[gateway]\nhost = 'http://x'\n"
      2:8: `gateway.host`: expected a host name or an IP address, without scheme, port or path, found the string "http://x"
    "[gateway]\nidle_timeout = -1\n"
      2:16: `gateway.idle_timeout`: expected a number of seconds up to 31536000, or 0 for never, found the number -1
    "[gateway]\nmax_memory = '0%'\n"
      2:14: `gateway.max_memory`: expected a share from "1%" to "100%", or a size such as "24GB" or "16GiB", found the string "0%"
    "[gateway]\nmax_memory = '101%'\n"
      2:14: `gateway.max_memory`: expected a share from "1%" to "100%", or a size such as "24GB" or "16GiB", found the string "101%"
    "[gateway]\nmax_memory = 'much'\n"
      2:14: `gateway.max_memory`: expected a share from "1%" to "100%", or a size such as "24GB" or "16GiB", found the string "much"
    "[gateway]\ntoken = 5\n"
      2:9: `gateway.token`: expected an ASCII string without spaces and control characters, found a whole number
    "[gateway]\ncors_origins = ['localhost:3000']\n"
      2:16: `gateway.cors_origins`: expected an array of origins such as "http://localhost:3000", found an array
    "[gateway]\ncors_origins = ['http://x/']\n"
      2:16: `gateway.cors_origins`: expected an array of origins such as "http://localhost:3000", found an array
    "[gateway]\nhosts = ['a b']\n"
      2:9: `gateway.hosts`: expected an array of host names, without scheme, port or path, found an array
    "[models.x]\ntemprature = 1\n"
      2:1: unknown key `models.x.temprature`; did you mean `models.x.temperature`?
    "[models.x]\nkeep_alive = 'long'\n"
      2:14: `models.x.keep_alive`: expected a number of seconds, a time such as "10m", or "forever", found the string "long"
    "[models.x]\ncontext = 0\n"
      2:11: `models.x.context`: expected a whole number from 1 to 1000000000, found the number 0
    "[mlx_server]\nrestart = 'always'\n"
      2:11: `mlx_server.restart`: expected "no" or "on-failure", found the string "always"
    "[mlx_server]\nkeep_awake = true\n"
      2:14: `mlx_server.keep_awake`: expected "never" or "requests", found true
    "[mlx_server]\nidle_timeout = 'x'\n"
      2:16: `mlx_server.idle_timeout`: expected a number of seconds up to 31536000, or 0 for never, found the string "x"
    "[mlx_server]\nexclusive = ''\n"
      2:13: `mlx_server.exclusive`: expected a string that is not empty, found the string ""
    "#);
}

#[test]
fn keys_of_instances_are_set_and_read() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("# mine\n[instances.coder]\ntemplate = 'mlx' # c\nmodel = 'm'\n");
    config(&sandbox, ["set", "instances.coder.port", "8123"]).assert_code(0);
    config(&sandbox, ["set", "instances.coder.run.temperature", "0.1"]).assert_code(0);
    config(&sandbox, ["set", "default_service", "coder"]).assert_code(0);
    config(&sandbox, ["set", "gateway.token", "secret-word"]).assert_code(0);
    config(&sandbox, ["get", "instances.coder.port"]).assert_stdout("8123\n");
    // Its own model is the one that `run` asks.
    config(&sandbox, ["get", "instances.coder.run.model"]).assert_stdout("m\n");
    config(&sandbox, ["unset", "instances.coder.port"]).assert_code(0);
    config(&sandbox, ["get", "instances.coder.port"]).assert_code(1);
    insta::assert_snapshot!(config(&sandbox, ["show"]), @r#"
    exit 0
    [stdout]
    default_service = "coder"
    # mine
    [instances.coder]
    template = 'mlx' # c
    model = 'm'
    run.temperature = 0.1

    [gateway]
    token = "********"
    "#);
    config(&sandbox, ["unset", "instances.coder.run"]).assert_code(0);
    // Something else names it.
    config(&sandbox, ["unset", "instances.coder"]).assert_code(2);
    config(&sandbox, ["unset", "default_service"]).assert_code(0);
    config(&sandbox, ["unset", "instances.coder"]).assert_code(0);
}

#[test]
fn keys_of_tables_that_are_not_there() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("[instances.coder]\ntemplate = 'mlx'\n");
    let shown = [
        &["get", "instances.codr.port"][..],
        &["set", "instances.codr.port", "8123"],
        &["set", "instances.codr.run.temperature", "0.1"],
        &["set", "instances.other.port", "8123"],
        &["set", "templates.comfy.default_port", "8123"],
        &["set", "instances.up.template", "mlx"],
        &["set", "instances.other.template", "mlx"],
        &["set", "templates.comfy.command", "['x']"],
    ];
    let shown = shown.map(|words| (words.join(" "), config(&sandbox, words.iter().copied())));
    insta::assert_snapshot!(table(shown), @"
    # get instances.codr.port
    exit 2
    [stderr]
    error: `instances.codr.port`: there is no instance `codr`; did you mean `coder`?
    # set instances.codr.port 8123
    exit 2
    [stderr]
    error: `instances.codr.port`: there is no instance `codr`; did you mean `coder`?
    # set instances.codr.run.temperature 0.1
    exit 2
    [stderr]
    error: `instances.codr.run.temperature`: there is no instance `codr`; did you mean `coder`?
    # set instances.other.port 8123
    exit 2
    [stderr]
    error: `instances.other.port`: there is no instance `other`; valid here: `coder`
    hint: make it: fusion create other --template TEMPLATE
    # set templates.comfy.default_port 8123
    exit 2
    [stderr]
    error: `templates.comfy.default_port`: there is no template `comfy`
    # set instances.up.template mlx
    exit 2
    [stderr]
    error: `instances.up`: this is a command of fusion
    # set instances.other.template mlx
    exit 0
    # set templates.comfy.command ['x']
    exit 0
    ");
}

#[test]
fn the_token_is_masked() {
    let sandbox = Sandbox::without_config();
    for text in [
        "[gateway]\ntoken = 'secret-word'\nport = 8800\n",
        "gateway = { port = 8800, token = \"secret-word\" }\n",
        "gateway.token = '''secret-word''' # c\n",
    ] {
        sandbox.write_config(text);
        let shown = [
            &["show"][..],
            &["show", "--json"],
            &["show", "--effective"],
            &["show", "--effective", "--json"],
            &["get", "gateway.token"],
        ];
        for arguments in shown {
            let shown = config(&sandbox, arguments.iter().copied()).assert_code(0);
            assert!(!shown.stdout().contains("secret"), "{shown}");
            assert!(shown.stdout().contains("********"), "{shown}");
        }
    }
    sandbox.write_config("[gateway]\ntoken = 'secret-word'\nprot = 1\n");
    let shown = config(&sandbox, ["show"]).assert_code(0);
    assert!(!shown.stdout().contains("secret"), "{shown}");
}

/// As it is pasted below a fresh file.
#[test]
fn the_services_of_usm_core_are_valid() {
    let sandbox = Sandbox::without_config();
    let fresh = config(&sandbox, ["show"]).stdout();
    let services = include_str!("../cases/services/services.toml");
    sandbox.write_config(&format!("{fresh}\n{services}"));
    config(&sandbox, ["check"]).assert_code(0);
}
