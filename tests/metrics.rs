//! `fusion metrics`, compared with what `ps` and `/proc` report.
#![cfg(target_os = "linux")]

mod support;

use serde_json::{Value, json};
use support::{Sandbox, fake_runtime, wait_until};

/// Ollama with a child that keeps a processor busy.
fn busy() -> Sandbox {
    let sandbox = Sandbox::new();
    let script = r#"while :; do :; done & exec \"$0\" ollama children=1 \"$@\""#;
    sandbox.configure(&format!("command = [\"/bin/sh\", \"-c\", \"{script}\", \"{}\"]", fake_runtime()), "");
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    sandbox
}

/// The fields of `/proc/PID/stat` from the third on.
fn stat(pid: i32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, fields) = text.rsplit_once(") ").expect("a name");
    fields.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The process and its descendants.
fn tree(leader: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("a Linux system").flatten();
    let all: Vec<i32> =
        entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    let mut tree = vec![leader];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        let is_child = |pid: &&i32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = text.rsplit_once(") ").map(|(_, fields)| fields.to_owned()).unwrap_or_default();
            fields.split_ascii_whitespace().nth(1) == Some(&parent.to_string())
        };
        tree.extend(all.iter().filter(is_child));
        next += 1;
    }
    tree
}

/// Seconds of CPU of the tree, by `/proc`.
fn cpu_seconds(tree: &[i32]) -> f64 {
    let ticks = tree.iter().map(|pid| {
        let stat = stat(*pid);
        stat[11].parse::<f64>().expect("a number") + stat[12].parse::<f64>().expect("a number")
    });
    ticks.sum::<f64>() / 100.0
}

/// CPU in percent of one processor since the start of the first process, by `/proc`.
fn cpu_percent(tree: &[i32]) -> f64 {
    let uptime = std::fs::read_to_string("/proc/uptime").expect("a Linux system");
    let now: f64 = uptime.split(' ').next().expect("a number").parse().expect("a number");
    let started = stat(tree[0])[19].parse::<f64>().expect("a number") / 100.0;
    100.0 * cpu_seconds(tree) / (now - started)
}

/// The sums of a column of `ps` over the tree.
fn ps(sandbox: &Sandbox, column: &str, tree: &[i32]) -> u64 {
    let pids = tree.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let ps = sandbox.command("ps").arg("-o").arg(format!("{column}=")).arg("-p").arg(pids).run();
    ps.stdout().lines().map(|line| line.trim().parse::<u64>().expect("a number")).sum()
}

/// Asserts that a value lies between two others that were measured before and after it, give or take 5 %.
#[track_caller]
fn assert_near(value: &Value, before: f64, after: f64) {
    let value = value.as_f64().expect("a number");
    let (least, most) = (before.min(after) * 0.95, before.max(after) * 1.05);
    assert!((least..=most).contains(&value), "{value} is not between {least} and {most}");
}

/// The server has a thread and a descriptor for each connection, of which the command makes some.
const CONNECTIONS: u64 = 4;

#[test]
#[expect(clippy::cast_precision_loss, reason = "compared to 5 %")]
fn metrics_agree_with_ps_and_proc() {
    let sandbox = busy();
    let leader = sandbox.pid("ollama").expect("a PID");
    let tree = tree(leader);
    assert_eq!(tree.len(), 3, "the server, its child and the busy one: {tree:?}");
    // The clock ticks of a shorter time are too few to compare.
    wait_until("it has used some CPU", || cpu_seconds(&tree) >= 0.5);
    let open_files = || {
        let count = |pid: &i32| std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
        u64::try_from(tree.iter().map(count).sum::<usize>()).expect("few files")
    };
    let measured = || (cpu_percent(&tree), ps(&sandbox, "rss", &tree) * 1024, ps(&sandbox, "nlwp", &tree));
    let before = measured();
    let metrics = sandbox.fusion(["metrics", "--json"]).run().assert_code(0).json();
    let after = measured();
    let [service] = metrics["services"].as_array().expect("an array").as_slice() else {
        panic!("one service runs: {metrics}")
    };
    assert_near(&service["cpu_percent"], before.0, after.0);
    assert_near(&service["memory_bytes"], before.1 as f64, after.1 as f64);
    let threads = service["threads"].as_u64().expect("a number");
    assert!((before.2.min(after.2)..=before.2.max(after.2) + CONNECTIONS).contains(&threads), "{threads}");
    let (files, idle) = (service["open_files"].as_u64().expect("a number"), open_files());
    assert!((idle..=idle + CONNECTIONS).contains(&files), "{files} {idle}");
    sandbox.fusion(["down"]).run().assert_code(0);
}

/// The names and types, which do not change between releases.
#[test]
fn metrics_json_has_every_key() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["up", "mlx", "ollama"]).run().assert_code(0);
    let mut metrics = sandbox.fusion(["metrics", "mlx", "--json"]).run().assert_code(0).json();
    let machine = metrics["machine"].take();
    for key in ["cpu_percent", "processors", "memory_bytes", "memory_available_bytes"] {
        assert!(machine[key].is_number(), "{key} in {machine}");
    }
    assert_eq!(machine["load_averages"].as_array().map(Vec::len), Some(3), "{machine}");
    for key in ["gpu_memory_bytes", "gpu_memory_used_bytes"] {
        assert!(
            machine.get(key).is_some_and(|value| value.is_null() || value.is_u64()),
            "{key} in {machine}"
        );
    }
    assert_eq!(machine.as_object().map(serde_json::Map::len), Some(7));
    for key in ["cpu_percent", "memory_bytes", "threads", "open_files"] {
        assert!(metrics["services"][0][key].is_number(), "{key} in {metrics}");
        metrics["services"][0][key] = json!("measured");
    }
    let expected = json!({"services": [{
        "name": "mlx", "pid": sandbox.pid("mlx"), "cpu_percent": "measured", "memory_bytes": "measured",
        "threads": "measured", "open_files": "measured", "in_flight": null, "tokens_per_second": null,
        "first_token_ms": null, "context_used": null, "idle_left_s": null,
    }], "machine": null});
    assert_eq!(metrics, expected);
    let names = |json: &Value| -> Vec<String> {
        let services = json["services"].as_array().expect("an array");
        services.iter().map(|service| service["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&sandbox.fusion(["metrics", "--json"]).run().json()), ["ollama", "mlx"]);
    sandbox.fusion(["down"]).run().assert_code(0);
}

#[test]
fn metrics_prints_a_table_of_services_and_machine() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["metrics", "mlx"]).run(), @"
    exit 3
    [stderr]
    error: mlx is not running
    hint: start it: fusion mlx up
    ");
    insta::assert_snapshot!(sandbox.fusion(["metrics", "mxl"]).run(), @"
    exit 2
    [stderr]
    error: there is no service mxl; did you mean mlx?
    hint: list the services: fusion ps
    ");
    let idle = sandbox.fusion(["metrics"]).run().assert_code(0).stdout();
    assert_eq!(idle.lines().count(), 2, "{idle}");
    assert!(idle.starts_with("MACHINE CPU  LOAD"), "{idle}");
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let text = sandbox.fusion(["metrics"]).run().assert_code(0).stdout();
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["SERVICE", "PID", "CPU", "MEMORY", "THREADS", "OPEN", "FILES"]);
    assert_eq!(words[1][..2], ["mlx", &*sandbox.pid("mlx").expect("a PID").to_string()]);
    assert!(words[1].iter().all(|word| *word != "-"), "{text}");
    assert_eq!((words[2].len(), words[3][..2].to_vec()), (0, vec!["MACHINE", "CPU"]));
    sandbox.fusion(["down"]).run().assert_code(0);
}
