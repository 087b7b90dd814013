//! Models that run on the CPU, or a part of them.

use crate::support::Sandbox;

#[test]
fn a_model_on_the_cpu_is_told() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["gpu=60"]);
    insta::assert_snapshot!(sandbox.fusion(["ollama", "up", "-m", "llama3.2:3b"]).run(), @"
    exit 0
    [stdout]
    ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])
    [stderr]
    warning: ollama runs llama3.2:3b partly on the CPU: 60% of it is on the GPU
    ");
    let ps = sandbox.fusion(["ollama", "ps"]).run().assert_code(0).stdout();
    assert!(ps.ends_with("\n  llama3.2:3b runs partly on the CPU: 60% of it is on the GPU\n"), "{ps}");
    let doctor = sandbox.fusion(["doctor", "--json"]).run().stdout();
    let findings: Vec<serde_json::Value> = serde_json::from_str(&doctor).unwrap();
    let finding = findings.iter().find(|finding| finding["check"] == "gpu").unwrap();
    insta::assert_snapshot!(finding, @r#"{"check":"gpu","level":"warning","remedy":"free memory of the GPU, or choose a smaller model or a shorter context","runtime":"ollama","service":"ollama","summary":"it runs llama3.2:3b partly on the CPU: 60% of it is on the GPU"}"#);
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

/// No memory of a GPU can be freed where there is none.
#[test]
fn doctor_tells_where_an_unused_gpu_is_explained() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["gpu=0"]);
    sandbox.fusion(["ollama", "up", "-m", "llama3.2:3b"]).run().assert_code(0);
    let doctor = sandbox.fusion(["doctor"]).run().stdout();
    let remedy = "where there is a GPU, the log of the server tells why it is not used";
    assert!(doctor.contains(remedy), "{doctor}");
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

#[test]
fn a_required_gpu_leaves_no_server() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["gpu=0"]);
    let up = sandbox.fusion(["ollama", "up", "--require-gpu", "-m", "llama3.2:3b"]).run();
    insta::assert_snapshot!(up, @"
    exit 6
    [stderr]
    error: ollama runs llama3.2:3b on the CPU
    hint: free memory of the GPU, choose a smaller model or a shorter context, or leave out --require-gpu
    ");
    sandbox.fusion(["up", "ollama", "--require-gpu"]).run().assert_code(6);
    sandbox.fusion(["ollama", "load", "--require-gpu", "llama3.2:3b"]).run().assert_code(6);
    sandbox.assert_nothing_runs();
}

#[test]
fn a_required_gpu_leaves_what_runs() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["gpu=99"]);
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let load = ["ollama", "load", "--require-gpu", "llama3.2:3b"];
    let up = ["ollama", "up", "--require-gpu"];
    for command in [&load[..], &up[..]] {
        let refused = sandbox.fusion(command.iter().copied()).run().assert_code(6);
        assert!(refused.stderr().contains("partly on the CPU: 99% of it"), "{refused}");
    }
    sandbox.fusion(["ollama", "ps"]).run().assert_code(0);
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

#[test]
fn a_model_on_the_gpu_is_accepted() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["gpu=100"]);
    let up = sandbox.fusion(["ollama", "up", "--require-gpu", "-m", "llama3.2:3b"]).run().assert_code(0);
    assert_eq!(up.stderr(), "");
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

#[test]
fn an_unknown_gpu_is_a_warning() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["mlx", "up", "--require-gpu"]).run(), @"
    exit 0
    [stdout]
    mlx is up at http://127.0.0.1:[MLX] (pid [PID])
    [stderr]
    warning: mlx does not tell whether a model runs on the GPU, so --require-gpu is not checked
    ");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}
