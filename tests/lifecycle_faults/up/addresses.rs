//! Faults of `up` whose cause is at the address: who has it, and who can reach it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};

use crate::support::{Running, Sandbox, fake_runtime, processes, wait_until};
use crate::{assert_nothing_left, assert_up_fails, down, state, up};

#[test]
fn port_taken_by_a_web_server() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let _server = serve_pages(("127.0.0.1", port));
    let (pid, up) = (std::process::id(), assert_up_fails(&sandbox, "ollama", 5));
    let stderr = up.stderr();
    assert!(stderr.starts_with(&format!("error: 127.0.0.1:{port} belongs to ")), "{stderr}");
    assert!(stderr.contains(&format!("(process {pid})")), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
    assert_eq!(sandbox.log("ollama"), "", "nothing was started");
}

#[test]
fn port_taken_by_somebody_who_never_answers() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let _listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let up = assert_up_fails(&sandbox, "ollama", 5);
    assert!(up.stderr().contains(&format!("(process {})", std::process::id())), "{}", up.stderr());
}

/// No more connections fit into its queue, so nobody seems to be there.
#[test]
fn port_taken_by_somebody_whose_queue_is_full() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    listen(&listener, Backlog::new(1).expect("a small number")).expect("a shorter queue");
    let connect = || TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_millis(500));
    let clients: Vec<TcpStream> = std::iter::from_fn(|| connect().ok()).take(1000).collect();
    assert!(clients.len() < 1000, "the queue is never full");
    let up = assert_up_fails(&sandbox, "ollama", 5);
    let in_use = std::io::Error::from(nix::errno::Errno::EADDRINUSE);
    let told = format!("(process {})\n  caused by: {in_use}\n", std::process::id());
    assert!(up.stderr().contains(&told), "{}", up.stderr());
}

#[test]
fn port_taken_at_every_address() {
    let sandbox = Sandbox::new();
    let _server = serve_pages(("0.0.0.0", sandbox.port("ollama")));
    assert_up_fails(&sandbox, "ollama", 5);
}

/// The same kind of runtime, started by somebody else, is as good as one's own, and is left alone.
#[test]
fn port_taken_by_another_of_the_same_kind() {
    for (runtime, variable) in [("ollama", "OLLAMA_HOST"), ("mlx", "UNUSED")] {
        let sandbox = Sandbox::new();
        let port = sandbox.port(runtime).to_string();
        let stranger = sandbox
            .command(fake_runtime())
            .arg(runtime)
            .env(variable, format!("127.0.0.1:{port}"))
            .arg("--port")
            .arg(&port)
            .start();
        wait_until("it answers", || state(&sandbox, runtime) == "external");
        let pid = stranger.pid();
        let url = sandbox.url(runtime);
        let line = format!("{runtime} is up at {url} (pid {pid}, not started by fusion)\n");
        assert_eq!(sandbox.fusion([runtime, "up"]).run().assert_code(0).stdout(), line);
        assert_eq!(sandbox.fusion([runtime, "up"]).run().assert_code(0).stdout(), line);
        assert_eq!(sandbox.record(runtime), None);

        let refused = sandbox.fusion([runtime, "down"]).run().assert_code(5);
        assert!(refused.stderr().contains(&pid.to_string()), "{}", refused.stderr());
        sandbox.fusion([runtime, "down", "--force"]).run().assert_code(5);
        sandbox.fusion([runtime, "restart"]).run().assert_code(5);
        sandbox.fusion(["down"]).run().assert(0, "", "nothing is running that fusion started\n");
        sandbox.fusion([runtime, "health"]).run().assert_code(0);
        if runtime == "ollama" {
            sandbox.fusion([runtime, "run", "Hello"]).run().assert(0, "Hello from the fake runtime.\n", "");
        }
        assert!(processes::lives(pid), "a stranger was stopped");
        processes::kill(pid);
        stranger.finish();
    }
}

#[test]
fn port_taken_by_another_of_the_same_kind_that_is_not_ready() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("mlx").to_string();
    let stranger =
        sandbox.command(fake_runtime()).arg("mlx").arg("loading=600000").arg("--port").arg(port).start();
    wait_until("it answers", || state(&sandbox, "mlx") == "unhealthy");
    let up = sandbox.fusion(["mlx", "up"]).run().assert_code(5);
    assert!(up.stderr().contains(&format!("(process {})", stranger.pid())), "{}", up.stderr());
    processes::kill(stranger.pid());
    stranger.finish();
}

/// Ollama says so and dies.
#[test]
fn port_taken_between_check_and_bind() {
    let sandbox = Sandbox::new();
    let go = sandbox.root().join("go");
    sandbox.faults("ollama", &[&format!("bind-when={}", go.display())]);
    let up = sandbox.fusion(["ollama", "up"]).start();
    wait_until("it was started", || sandbox.log("ollama").contains("waiting"));
    let _server = serve_pages(("127.0.0.1", sandbox.port("ollama")));
    std::fs::write(&go, "").expect("the sandbox is writable");
    let up = up.finish().assert_code(5);
    assert!(up.stderr().contains(&format!("(process {})", std::process::id())), "{}", up.stderr());
    assert_nothing_left(&sandbox, "ollama");
}

/// `mlx_lm.server` lives on without listening, and somebody else answers.
#[test]
fn port_taken_between_check_and_bind_and_the_server_lives_on() {
    for same_kind in [false, true] {
        let sandbox = Sandbox::new();
        let go = sandbox.root().join("go");
        sandbox.faults("mlx", &[&format!("bind-when={}", go.display())]);
        let up = sandbox.fusion(["mlx", "up"]).start();
        wait_until("it was started", || sandbox.log("mlx").contains("waiting"));
        let port = sandbox.port("mlx");
        let mut stranger = None;
        let _server = if same_kind {
            let started = sandbox.command(fake_runtime()).arg("mlx").arg("--port").arg(port.to_string());
            stranger = Some(started.arg("--model").arg(sandbox.model()).start());
            None
        } else {
            Some(serve_pages(("127.0.0.1", port)))
        };
        let culprit = stranger.as_ref().map_or(std::process::id().cast_signed(), Running::pid);
        let up = up.finish();
        std::fs::write(&go, "").expect("the sandbox is writable");
        let up = up.assert_code(5);
        assert!(up.stderr().contains(&format!("(process {culprit})")), "{}", up.stderr());
        if let Some(stranger) = stranger {
            assert!(processes::lives(culprit), "a stranger was stopped");
            processes::kill(culprit);
            stranger.finish();
        }
        assert_nothing_left(&sandbox, "mlx");
    }
}

#[test]
fn the_two_loopbacks_are_served_by_two_programs() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let _other = serve_pages(("::1", port));
    let pid = up(&sandbox, "ollama");
    assert!(processes::lives(pid));
    assert_eq!(state(&sandbox, "ollama"), "ready");
    down(&sandbox, "ollama");
}

/// Requests to that name may reach either address.
#[test]
fn localhost_is_served_by_a_stranger_at_its_other_address() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!("[ollama_server]\nhost = \"localhost\"\nport = {port}\n"));
    let _other = serve_pages(("::1", port));
    let pid = std::process::id();
    let stderr = assert_up_fails(&sandbox, "ollama", 5).stderr();
    assert!(stderr.starts_with(&format!("error: localhost:{port} belongs to ")), "{stderr}");
    assert!(stderr.contains(&format!("(process {pid})")), "{stderr}");
}

#[test]
fn a_host_that_is_not_of_this_machine() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!(
        "[ollama_server]\nhost = \"192.0.2.1\"\nport = {port}\nstartup_timeout = 5\n"
    ));
    let up = assert_up_fails(&sandbox, "ollama", 1);
    assert!(up.stderr().contains("192.0.2.1"), "{}", up.stderr());
    assert!(up.stderr().contains("hint: "), "{}", up.stderr());
}

#[test]
fn a_host_that_others_can_reach_is_warned_about_every_time() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!("[ollama_server]\nhost = \"0.0.0.0\"\nport = {port}\n"));
    for _ in 0..2 {
        sandbox.fusion(["ollama", "up"]).run().assert(
            0,
            "ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])\n",
            "warning: ollama listens at 0.0.0.0:[OLLAMA]: others on the network can reach it, and it asks nobody for a \
             password\n",
        );
    }
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
