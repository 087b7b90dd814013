//! A model server whose every byte the test decides, and which runs only while the driver says so.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::http::{self, Message};
use super::ports::Port;

/// What becomes of a request: writes the response, or does not.
pub type Script = Arc<dyn Fn(&Message, &mut TcpStream) + Send + Sync>;

/// One server. It answers what fusion asks to recognise Ollama by itself; all other requests are the script's.
pub struct Backend {
    pub port: u16,
    reservation: Arc<Port>,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Script>,
    /// The requests that the script got.
    requests: Mutex<Vec<Message>>,
    connections: AtomicUsize,
    /// How often it was asked for the models that it has.
    lists: AtomicUsize,
    /// How many connections the other side closed before the script was done with them.
    gone: AtomicUsize,
    models: Mutex<Vec<String>>,
    /// Whether its models are in memory.
    is_loaded: AtomicBool,
    /// Whether it answers what fusion asks to recognise it.
    is_well: AtomicBool,
    /// Whether it is silent about that.
    is_hung: AtomicBool,
    version: Mutex<&'static str>,
    listening: Mutex<Option<Arc<AtomicBool>>>,
    /// The connections that are open, each with its number.
    open: Mutex<Vec<(usize, TcpStream)>>,
}

impl Backend {
    /// Returns a server that does not listen yet.
    pub fn stopped(script: impl Fn(&Message, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let port = Port::free();
        let shared = Shared {
            script: Mutex::new(Arc::new(script)),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            models: Mutex::new(vec!["tiny".to_owned()]),
            is_loaded: AtomicBool::new(true),
            is_well: AtomicBool::new(true),
            is_hung: AtomicBool::new(false),
            version: Mutex::new("0.14.0"),
            listening: Mutex::default(),
            open: Mutex::default(),
        };
        Self { port: port.number(), reservation: Arc::new(port), shared: Arc::new(shared) }
    }

    /// Returns a server that listens.
    pub fn running(script: impl Fn(&Message, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let backend = Self::stopped(script);
        backend.start();
        backend
    }

    pub fn set_script(&self, script: impl Fn(&Message, &mut TcpStream) + Send + Sync + 'static) {
        *self.shared.script.lock().expect("no panic") = Arc::new(script);
    }

    /// Says that it is this version of Ollama; 0.14 is the first with more than chat completions.
    pub fn set_version(&self, version: &'static str) {
        *self.shared.version.lock().expect("no panic") = version;
    }

    pub fn set_models(&self, models: &[&str]) {
        *self.shared.models.lock().expect("no panic") = models.iter().map(ToString::to_string).collect();
    }

    /// Says that its models are in memory, or that none is.
    pub fn set_loaded(&self, is_loaded: bool) {
        self.shared.is_loaded.store(is_loaded, Ordering::SeqCst);
    }

    /// Says that it is well, or that it has lost its health.
    pub fn set_well(&self, is_well: bool) {
        self.shared.is_well.store(is_well, Ordering::SeqCst);
    }

    /// Lets it be silent about what fusion asks, or speak again.
    pub fn set_hung(&self, is_hung: bool) {
        self.shared.is_hung.store(is_hung, Ordering::SeqCst);
    }

    /// Begins to listen.
    pub fn start(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("the port is free");
        let stop = Arc::new(AtomicBool::new(false));
        *self.shared.listening.lock().expect("no panic") = Some(Arc::clone(&stop));
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(stream, number));
            }
        });
    }

    /// Stops listening and closes every connection, as the end of the process would.
    pub fn stop(&self) {
        let Some(stop) = self.shared.listening.lock().expect("no panic").take() else { return };
        stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        for (_, stream) in self.shared.open.lock().expect("no panic").drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    pub fn is_listening(&self) -> bool {
        self.shared.listening.lock().expect("no panic").is_some()
    }

    /// Returns the requests that came so far, without those by which fusion recognises the server.
    pub fn requests(&self) -> Vec<Message> {
        self.shared.requests.lock().expect("no panic").clone()
    }

    /// Forgets the requests that came so far.
    pub fn forget_requests(&self) {
        self.shared.requests.lock().expect("no panic").clear();
    }

    /// Returns how many connections were closed under a script that waited.
    pub fn gone(&self) -> usize {
        self.shared.gone.load(Ordering::SeqCst)
    }

    /// Returns how often it was asked for the models that it has.
    pub fn lists(&self) -> usize {
        self.shared.lists.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Returns another handle.
    pub fn handle(&self) -> Self {
        Self { port: self.port, reservation: Arc::clone(&self.reservation), shared: Arc::clone(&self.shared) }
    }

    /// Waits until the other side closes the connection, and counts that.
    pub fn wait_until_gone(&self, stream: &mut TcpStream) {
        while !matches!(stream.read(&mut [0; 4096]), Ok(0) | Err(_)) {}
        self.shared.gone.fetch_add(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream, number: usize) {
        if let Ok(copy) = stream.try_clone() {
            self.open.lock().expect("no panic").push((number, copy));
        }
        self.answer(stream);
        self.open.lock().expect("no panic").retain(|(other, _)| *other != number);
    }

    fn answer(&self, mut stream: TcpStream) {
        while let Some(request) = http::read(&mut stream, true) {
            match request.line.as_str() {
                line if line.starts_with("GET ") && self.is_hung.load(Ordering::SeqCst) => {
                    while !matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)) {}
                    return;
                }
                line if line.starts_with("GET ") && !self.is_well.load(Ordering::SeqCst) => {
                    http::respond(&mut stream, 500, "{}");
                }
                "GET /api/version HTTP/1.1" => {
                    let version = *self.version.lock().expect("no panic");
                    http::respond(&mut stream, 200, &serde_json::json!({ "version": version }).to_string());
                }
                line @ ("GET /api/tags HTTP/1.1" | "GET /api/ps HTTP/1.1") => {
                    let has_all = line.contains("tags");
                    self.lists.fetch_add(usize::from(has_all), Ordering::SeqCst);
                    let is_listed = has_all || self.is_loaded.load(Ordering::SeqCst);
                    let models = self.models.lock().expect("no panic").clone();
                    let models = if is_listed { models } else { Vec::new() };
                    let rows =
                        models.iter().map(|model| serde_json::json!({ "name": model, "model": model }));
                    let list = serde_json::json!({ "models": rows.collect::<Vec<_>>() });
                    http::respond(&mut stream, 200, &list.to_string());
                }
                // What `up` and the gateway ask before they send anything.
                line if line.starts_with("GET ") => http::respond(&mut stream, 404, "{}"),
                _ => {
                    self.requests.lock().expect("no panic").push(request.clone());
                    let script = Arc::clone(&self.script.lock().expect("no panic"));
                    script(&request, &mut stream);
                }
            }
            if stream.flush().is_err() {
                return;
            }
        }
    }
}
