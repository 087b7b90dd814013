//! Faults of `up` at its address: what listens there, and what can reach it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};

use crate::matrix::for_each_service;
use crate::support::{Invocation, Sandbox, fake_runtime, processes, same_output, wait_until};
use crate::{assert_nothing_left, assert_up_fails, down, mask_silence, state, up};

#[test]
fn up_reports_a_port_of_a_web_server() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let _server = serve_pages(("127.0.0.1", port));
    let up = assert_up_fails(&sandbox, "ollama", 5);
    insta::assert_snapshot!(up.assert_names_pid(processes::own_pid()), @"
    exit 5
    [stderr]
    error: port [OLLAMA] is in use by [TEST] (pid [PID])
      caused by: HTTP 200 without an Ollama version
    hint: stop that program, or choose another port: fusion config set ollama_server.port PORT
    ");
    assert_eq!(sandbox.log("ollama"), "", "nothing was started");
}

#[test]
fn up_reports_a_port_of_a_silent_listener() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let _listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let up = mask_silence(sandbox.fusion(["ollama", "up"])).run();
    insta::assert_snapshot!(up.assert_names_pid(processes::own_pid()), @"
    exit 5
    [stderr]
    error: port [OLLAMA] is in use by [TEST] (pid [PID])
      caused by: [SILENCE]
    hint: stop that program, or choose another port: fusion config set ollama_server.port PORT
    ");
    assert_nothing_left(&sandbox, "ollama");
}

/// The listener's queue takes no more connections, so no server seems to listen.
#[test]
fn up_reports_a_port_with_a_full_queue() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    listen(&listener, Backlog::new(1).expect("a small number")).expect("a shorter queue");
    let connect = || TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_millis(500));
    let clients: Vec<TcpStream> = std::iter::from_fn(|| connect().ok()).take(1000).collect();
    assert!(clients.len() < 1000, "the queue is never full");
    let up = assert_up_fails(&sandbox, "ollama", 5);
    insta::assert_snapshot!(up.assert_names_pid(processes::own_pid()), @"
    exit 5
    [stderr]
    error: port [OLLAMA] is in use by [TEST] (pid [PID])
      caused by: Address already in use (os error [ERRNO])
    hint: stop that program, or choose another port: fusion config set ollama_server.port PORT
    ");
}

#[test]
fn up_reports_a_port_taken_at_every_address() {
    let sandbox = Sandbox::new();
    let _server = serve_pages(("0.0.0.0", sandbox.port("ollama")));
    insta::assert_snapshot!(assert_up_fails(&sandbox, "ollama", 5), @"
    exit 5
    [stderr]
    error: port [OLLAMA] is in use by [TEST] (pid [PID])
      caused by: HTTP 200 without an Ollama version
    hint: stop that program, or choose another port: fusion config set ollama_server.port PORT
    ");
}

#[test]
fn an_external_server_is_used_and_never_stopped() {
    let [ollama, mlx] = ["ollama", "mlx"].map(commands_of_an_external_server);
    assert_eq!(ollama, mlx);
    insta::assert_snapshot!(ollama, @"
    exit 0
    [stdout]
    [SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID], not started by fusion)
    exit 5
    [stderr]
    error: [SERVICE] at 127.0.0.1:[PORT] is fake-runtime (pid [PID]), a process that fusion did not start
    hint: stop it with the program that started it
    exit 5
    [stderr]
    error: [SERVICE] at 127.0.0.1:[PORT] is fake-runtime (pid [PID]), a process that fusion did not start
    hint: stop it with the program that started it
    exit 0
    [stderr]
    nothing is running that fusion started
    exit 0
    [stdout]
    [SERVICE] is healthy: one token of [MODEL] in [TIME] ms
    exit 0
    [stdout]
    Hello from the fake runtime.
    ");
}

/// Starts a server outside fusion; returns what the commands print.
fn commands_of_an_external_server(service: &str) -> String {
    let sandbox = Sandbox::new();
    let port = sandbox.port(service).to_string();
    let server = sandbox.command(fake_runtime()).arg(service).env("OLLAMA_HOST", format!("127.0.0.1:{port}"));
    let model = sandbox.model().display().to_string();
    let model: &[&str] = if service == "mlx" { &["--model", &model] } else { &[] };
    let server = model.iter().fold(server.arg("--port").arg(&port), Invocation::arg).start();
    wait_until("it answers", || state(&sandbox, service) == "external");
    let run = |words: &[&str]| {
        let words = [service].into_iter().chain(words.iter().copied());
        sandbox.fusion(words).mask_service(service).mask("default_model", "[MODEL]").run()
    };
    let up = run(&["up"]);
    run(&["up"]).assert_stdout(&up.stdout()).assert_names_pid(server.pid());
    assert_eq!(sandbox.record(service), None);

    let refused = run(&["down"]).assert_names_pid(server.pid());
    let refused = same_output([refused, run(&["down", "--force"])]);
    let restart = run(&["restart"]);
    let down_of_all = sandbox.fusion(["down"]).run();
    let [health, answer] = [run(&["health"]), run(&["run", "Hello"])];
    assert!(processes::lives(server.pid()), "an external server was stopped");
    processes::kill(server.pid());
    server.finish();
    format!("{up}{refused}{restart}{down_of_all}{health}{answer}")
}

#[test]
fn up_reports_an_external_server_that_loads() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("mlx").to_string();
    let server =
        sandbox.command(fake_runtime()).arg("mlx").arg("loading=600000").arg("--port").arg(port).start();
    wait_until("it answers", || state(&sandbox, "mlx") == "unhealthy");
    let up = sandbox.fusion(["mlx", "up"]).run();
    insta::assert_snapshot!(up.assert_names_pid(server.pid()), @"
    exit 5
    [stderr]
    error: port [MLX] is in use by fake-runtime (pid [PID])
      caused by: loading
    hint: stop that program, or choose another port: fusion config set mlx_server.port PORT
    ");
    processes::kill(server.pid());
    server.finish();
}

/// Ollama reports that and exits.
#[test]
fn up_reports_a_port_taken_before_the_bind() {
    for_each_service(&["bind-when=[ROOT]/go"], |sandbox, service| {
        let up = sandbox.fusion([service, "up"]).start();
        wait_until("it was started", || sandbox.log(service).contains("waiting"));
        let _server = serve_pages(("127.0.0.1", sandbox.port("ollama")));
        std::fs::write(sandbox.root().join("go"), "").expect("the sandbox is writable");
        let up = up.finish().assert_code(5).assert_names_pid(processes::own_pid());
        assert!(up.stderr().contains("is in use by"), "{up}");
        assert_nothing_left(sandbox, service);
    });
}

/// `mlx_lm.server` runs on without listening, and a web server answers.
#[test]
fn up_stops_a_server_that_lost_its_port() {
    let (sandbox, go) = with_a_held_bind();
    let up = sandbox.fusion(["mlx", "up"]).start();
    wait_until("it was started", || sandbox.log("mlx").contains("waiting"));
    let _server = serve_pages(("127.0.0.1", sandbox.port("mlx")));
    let up = up.finish();
    insta::assert_snapshot!(up.assert_names_pid(processes::own_pid()), @"
    exit 5
    [stderr]
    error: port [MLX] is in use by [TEST] (pid [PID])
      caused by: HTTP 200 to /health
    hint: stop that program, or choose another port: fusion config set mlx_server.port PORT
    ");
    std::fs::write(&go, "").expect("the sandbox is writable");
    assert_nothing_left(&sandbox, "mlx");
}

#[test]
fn up_reports_another_server_on_its_port() {
    let (sandbox, go) = with_a_held_bind();
    let up = sandbox.fusion(["mlx", "up"]).start();
    wait_until("it was started", || sandbox.log("mlx").contains("waiting"));
    let server = sandbox.command(fake_runtime()).arg("mlx").arg("--model").arg(sandbox.model());
    let server = server.arg("--port").arg(sandbox.port("mlx").to_string()).start();
    let up = up.finish();
    insta::assert_snapshot!(up.assert_names_pid(server.pid()), @"
    exit 5
    [stderr]
    error: port [MLX] is in use by fake-runtime (pid [PID])
      caused by: another server of this kind responds there
    hint: stop that program, or choose another port: fusion config set mlx_server.port PORT
    ");
    std::fs::write(&go, "").expect("the sandbox is writable");
    assert!(processes::lives(server.pid()), "an external server was stopped");
    processes::kill(server.pid());
    server.finish();
    assert_nothing_left(&sandbox, "mlx");
}

/// MLX binds when the file exists.
fn with_a_held_bind() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    let go = sandbox.root().join("go");
    sandbox.faults("mlx", &[&format!("bind-when={}", go.display())]);
    (sandbox, go)
}

#[test]
fn another_listener_on_ipv6_loopback_is_ignored() {
    for_each_service(&[], |sandbox, service| {
        let port = sandbox.port("ollama");
        let _other = serve_pages(("::1", port));
        let pid = up(sandbox, service);
        assert!(processes::lives(pid));
        assert_eq!(state(sandbox, service), "ready");
        down(sandbox, service);
    });
}

/// A request to that name may reach either address.
#[test]
fn localhost_is_checked_at_both_addresses() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!("[ollama_server]\nhost = \"localhost\"\nport = {port}\n"));
    let _other = serve_pages(("::1", port));
    let up = assert_up_fails(&sandbox, "ollama", 5);
    insta::assert_snapshot!(up.assert_names_pid(processes::own_pid()), @"
    exit 5
    [stderr]
    error: port [OLLAMA] is in use by [TEST] (pid [PID])
      caused by: localhost can mean several addresses, and another process listens at one of them
    hint: stop that program, or choose another port: fusion config set ollama_server.port PORT
    ");
}

#[test]
fn up_reports_a_host_of_another_machine() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!(
        "[ollama_server]\nhost = \"192.0.2.1\"\nport = {port}\nstartup_timeout = 5\n"
    ));
    // Systems word this error differently.
    let unavailable = std::io::Error::from(nix::errno::Errno::EADDRNOTAVAIL).to_string();
    let unavailable = sandbox.normalized(&unavailable);
    let up = sandbox.fusion(["ollama", "up"]).mask(unavailable, "[UNAVAILABLE]").run();
    assert_nothing_left(&sandbox, "ollama");
    insta::assert_snapshot!(up, @"
    exit 1
    [stderr]
    warning: ollama listens on 192.0.2.1:[OLLAMA]: the server has no authentication: anyone who can reach this address can use it
    error: cannot listen on 192.0.2.1:[OLLAMA]
      caused by: [UNAVAILABLE]
    hint: choose an address of this machine: fusion config set ollama_server.host 127.0.0.1
    ");
}

#[test]
fn every_up_warns_about_a_public_host() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!("[ollama_server]\nhost = \"0.0.0.0\"\nport = {port}\n"));
    let ups = [(), ()].map(|()| sandbox.fusion(["ollama", "up"]).run());
    insta::assert_snapshot!(same_output(ups), @"
    exit 0
    [stdout]
    ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])
    [stderr]
    warning: ollama listens on 0.0.0.0:[OLLAMA]: the server has no authentication: anyone who can reach this address can use it
    ");
    down(&sandbox, "ollama");
}

/// Answers every request with a page, until it is dropped.
struct Pages {
    address: std::net::SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn serve_pages(address: (&str, u16)) -> Pages {
    use std::sync::atomic::{AtomicBool, Ordering};
    let listener = TcpListener::bind(address).expect("the port is free");
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let (address, stopped) = (listener.local_addr().expect("an address"), std::sync::Arc::clone(&stop));
    let thread = std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let page = "<html>It works!</html>";
            let length = page.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            );
        }
    });
    Pages { address, stop, thread: Some(thread) }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
