//! Faults of `up` at its address: what listens there, and what can reach it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};

use crate::support::matrix::{add_key, assert_shows, for_each_service, role_of};
use crate::support::{Invocation, Sandbox, fake_runtime, processes, same_output, three_ports, wait_until};
use crate::{assert_nothing_left, assert_up_fails, down, state, up, without_silence};

#[test]
fn up_reports_a_port_of_a_web_server() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let _server = serve_pages(("127.0.0.1", port), 200);
    let up = assert_up_fails(&sandbox, "ollama", 5);
    insta::assert_snapshot!(up.assert_names_pid(processes::own_pid()), @"
    exit 5
    [stderr]
    error: port [OLLAMA] is in use by [TEST] (pid [PID])
      caused by: HTTP 200 without an Ollama version
    hint: stop that program, or choose another port: fusion config set ollama_server.port [SPARE]
    ");
    assert_eq!(sandbox.log("ollama"), "", "nothing was started");
}

/// Asserts that `up` reports the listener of this test on the port of the service, for this cause.
#[track_caller]
fn assert_port_is_in_use(sandbox: &Sandbox, service: &str, cause: &str) {
    let refused = sandbox.fusion([service, "up"]).run().assert_names_pid(processes::own_pid());
    assert_shows(
        &without_silence(&refused),
        service,
        &format!(
            "exit 5\n\
             [stderr]\n\
             error: port [PORT] is in use by [TEST] (pid [PID])\n  \
             caused by: {cause}\n\
             hint: stop that program, or choose another port: fusion config set [TABLE].port [SPARE]"
        ),
    );
    assert_nothing_left(sandbox, service);
    assert_eq!(sandbox.log(service), "", "it was started");
}

/// What the servers say of a page that is none of theirs.
fn not_found(service: &str) -> &'static str {
    match service {
        "replaced" => "HTTP 404 to /health",
        "web" => "HTTP 404 to /api/version",
        _ => "HTTP 404 without an Ollama version",
    }
}

#[test]
fn a_web_server_on_the_port_is_named() {
    for_each_service(&[], |sandbox, service| {
        let _server = serve_pages(("127.0.0.1", sandbox.port("ollama")), 404);
        assert_port_is_in_use(sandbox, service, not_found(service));
    });
}

#[test]
fn up_reports_a_port_of_a_silent_listener() {
    for_each_service(&[], |sandbox, service| {
        let listener = TcpListener::bind(("127.0.0.1", sandbox.port("ollama"))).expect("the port is free");
        assert_port_is_in_use(sandbox, service, "[SILENCE]");
        drop(listener);
    });
}

/// The listener's queue takes no more connections, so no server seems to listen.
#[test]
fn up_reports_a_port_with_a_full_queue() {
    for_each_service(&[], |sandbox, service| {
        let port = sandbox.port("ollama");
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        listen(&listener, Backlog::new(1).expect("a small number")).expect("a shorter queue");
        let connect =
            || TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_millis(500));
        let clients: Vec<TcpStream> = std::iter::from_fn(|| connect().ok()).take(1000).collect();
        assert!(clients.len() < 1000, "the queue is never full");
        assert_port_is_in_use(sandbox, service, "Address already in use (os error [ERRNO])");
    });
}

#[test]
fn up_reports_a_port_taken_at_every_address() {
    for_each_service(&[], |sandbox, service| {
        let _server = serve_pages(("0.0.0.0", sandbox.port("ollama")), 404);
        assert_port_is_in_use(sandbox, service, not_found(service));
    });
}

/// Of three ports of the template, one is in use and one is that of another service.
#[test]
fn the_port_of_the_hint_may_be_used() {
    let sandbox = Sandbox::new();
    let (_held, first) = three_ports();
    let file = |last: u16| {
        format!(
            "[templates.any]\ncommand = ['{}', 'ollama', '--port', '{{port}}']\nport_range = [{first}, {last}]\n\
             [instances.one]\ntemplate = 'any'\nport = {first}\n\
             [instances.two]\ntemplate = 'any'\nport = {}\n",
            fake_runtime(),
            first + 1
        )
    };
    let _listener = TcpListener::bind(("127.0.0.1", first)).expect("the port is free");
    for (last, port) in [(first + 1, "PORT".to_owned()), (first + 2, (first + 2).to_string())] {
        sandbox.write_config(&file(last));
        let refused = sandbox.fusion(["one", "up"]).run().assert_code(5).stderr();
        let command = format!("config set instances.one.port {port}");
        assert!(refused.ends_with(&format!("choose another port: fusion {command}\n")), "{refused}");
        if port != "PORT" {
            sandbox.fusion(command.split(' ')).run().assert_code(0);
        }
    }
    up(&sandbox, "one");
    down(&sandbox, "one");
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
    hint: stop that program, or choose another port: fusion config set mlx_server.port [SPARE]
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
        let _server = serve_pages(("127.0.0.1", sandbox.port("ollama")), 200);
        std::fs::write(sandbox.root().join("go"), "").expect("the sandbox is writable");
        let up = up.finish().assert_code(5).assert_names_pid(processes::own_pid());
        assert!(up.stderr().contains("is in use by"), "{up}");
        assert_nothing_left(sandbox, service);
    });
}

/// The server runs on without listening, and a web server answers.
#[test]
fn up_stops_a_server_that_lost_its_port() {
    for_each_service(&["bind-when=[ROOT]/go"], |sandbox, service| {
        let up = sandbox.fusion([service, "up"]).start();
        wait_until("it was started", || sandbox.log(service).contains("waiting"));
        let _server = serve_pages(("127.0.0.1", sandbox.port("ollama")), 404);
        assert_shows(
            &up.finish().assert_names_pid(processes::own_pid()),
            service,
            &format!(
                "exit 5\n\
                 [stderr]\n\
                 error: port [PORT] is in use by [TEST] (pid [PID])\n  \
                 caused by: {}\n\
                 hint: stop that program, or choose another port: fusion config set [TABLE].port [SPARE]",
                not_found(service)
            ),
        );
        assert_nothing_left(sandbox, service);
    });
}

#[test]
fn up_reports_another_server_on_its_port() {
    for_each_service(&["bind-when=[ROOT]/go"], |sandbox, service| {
        let up = sandbox.fusion([service, "up"]).start();
        wait_until("it was started", || sandbox.log(service).contains("waiting"));
        let server =
            sandbox.command(fake_runtime()).arg(role_of(service)).arg("--model").arg(sandbox.model());
        let server = server.arg("--port").arg(sandbox.port("ollama").to_string()).start();
        assert_shows(
            &up.finish().assert_names_pid(server.pid()),
            service,
            "exit 5\n\
             [stderr]\n\
             error: port [PORT] is in use by fake-runtime (pid [PID])\n  \
             caused by: another server of this kind responds there\n\
             hint: stop that program, or choose another port: fusion config set [TABLE].port [SPARE]",
        );
        assert!(processes::lives(server.pid()), "an external server was stopped");
        processes::kill(server.pid());
        server.finish();
        assert_nothing_left(sandbox, service);
    });
}

#[test]
fn another_listener_on_ipv6_loopback_is_ignored() {
    for_each_service(&[], |sandbox, service| {
        let port = sandbox.port("ollama");
        let _other = serve_pages(("::1", port), 404);
        let pid = up(sandbox, service);
        assert!(processes::lives(pid));
        assert_eq!(state(sandbox, service), "ready");
        down(sandbox, service);
    });
}

/// A request to that name may reach either address.
#[test]
fn localhost_is_checked_at_both_addresses() {
    for_each_service(&[], |sandbox, service| {
        add_key(sandbox, "host = 'localhost'");
        let port = sandbox.port("ollama");
        let _other = serve_pages(("::1", port), 404);
        let up = assert_up_fails(sandbox, service, 5).assert_names_pid(processes::own_pid());
        let cause = "localhost can mean several addresses, and another process listens at one of them";
        assert!(up.stderr().contains(&format!("port {port} is in use by ")), "{up}");
        assert!(up.stderr().contains(cause), "{up}");
    });
}

#[test]
fn up_reports_a_host_of_another_machine() {
    // Systems word this error differently.
    let unavailable = std::io::Error::from(nix::errno::Errno::EADDRNOTAVAIL).to_string();
    for_each_service(&[], |sandbox, service| {
        add_key(sandbox, "host = '192.0.2.1'");
        let up = sandbox.fusion([service, "up", "--timeout", "5"]);
        let up = up.mask(sandbox.normalized(&unavailable), "[UNAVAILABLE]").run();
        assert_nothing_left(sandbox, service);
        assert_shows(
            &up,
            service,
            "exit 1\n\
             [stderr]\n\
             warning: [SERVICE] listens on 192.0.2.1:[PORT]: the server has no authentication: anyone who can reach this address can use it\n\
             error: cannot listen on 192.0.2.1:[PORT]\n  \
             caused by: [UNAVAILABLE]\n\
             hint: choose an address of this machine: fusion config set [TABLE].host 127.0.0.1",
        );
    });
}

#[test]
fn every_up_warns_about_a_public_host() {
    for_each_service(&[], |sandbox, service| {
        add_key(sandbox, "host = '0.0.0.0'");
        let ups = [(), ()].map(|()| sandbox.fusion([service, "up"]).run());
        assert_shows(
            &same_output(ups),
            service,
            "exit 0\n\
             [stdout]\n\
             [SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID])\n\
             [stderr]\n\
             warning: [SERVICE] listens on 0.0.0.0:[PORT]: the server has no authentication: anyone who can reach this address can use it",
        );
        down(sandbox, service);
    });
}

/// Answers every request with a page, until it is dropped.
struct Pages {
    address: std::net::SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn serve_pages(address: (&str, u16), status: u16) -> Pages {
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
                "HTTP/1.1 {status} Page\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
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
