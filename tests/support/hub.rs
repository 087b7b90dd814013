//! A model hub on loopback, from which the real `hf` tool downloads: the model's facts, the list of its files, and the
//! files, with ranges; and its faults.
//!
//! It lists its requests.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// The only commit of every model.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub that runs until the test ends.
pub struct Hub {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The files of each model.
    models: Mutex<BTreeMap<String, Files>>,
    faults: Mutex<HashMap<String, Fault>>,
    requests: Mutex<Vec<Request>>,
    /// What a list says of each model besides its name and files.
    facts: Mutex<BTreeMap<String, Value>>,
    /// Seconds after which it takes requests again.
    limit: Mutex<Option<u64>>,
}

type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// What goes wrong with a file: at each request, or once.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Closes the connection after this number of bytes, once.
    CutOnce(usize),
    /// Sends nothing after this number of bytes, and keeps the connection.
    StallAfter(usize),
    /// The owner of the model has to allow the download.
    Gated,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

impl Hub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                // The hub outlives a client that closes its connection.
                std::thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Self { port, shared }
    }

    /// `HF_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Offers the files of a directory as a model.
    pub fn offer(&self, name: &str, directory: &Path) {
        let entries = std::fs::read_dir(directory).expect("a directory").flatten();
        let files = entries.map(|entry| {
            let bytes = std::fs::read(entry.path()).expect("a file");
            (entry.file_name().to_string_lossy().into_owned(), Arc::new(bytes))
        });
        self.lock_models().insert(name.to_owned(), files.collect());
    }

    /// Offers one more file.
    pub fn add(&self, name: &str, file: &str, bytes: Vec<u8>) {
        self.lock_models().entry(name.to_owned()).or_default().insert(file.to_owned(), Arc::new(bytes));
    }

    /// Offers the model no more.
    pub fn withdraw(&self, name: &str) {
        self.lock_models().remove(name);
    }

    /// Tells more about a model in lists.
    pub fn describe(&self, name: &str, facts: Value) {
        self.shared.facts.lock().expect("no panic").insert(name.to_owned(), facts);
    }

    /// Refuses every request, for so many seconds as it says.
    pub fn refuse(&self, seconds: u64) {
        *self.shared.limit.lock().expect("no panic") = Some(seconds);
    }

    /// Gives every file of that name this fault.
    pub fn break_file(&self, file: &str, fault: Fault) {
        self.shared.faults.lock().expect("no panic").insert(file.to_owned(), fault);
    }

    /// Removes all faults.
    pub fn repair(&self) {
        self.shared.faults.lock().expect("no panic").clear();
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("no panic").clone()
    }

    /// The downloads so far, complete or not: file name and range.
    pub fn downloads(&self) -> Vec<(String, Option<String>)> {
        let files =
            self.requests().into_iter().filter(|request| request.method == "GET").filter_map(|request| {
                let file = request.path.split_once(&format!("/resolve/{COMMIT}/"))?.1.to_owned();
                Some((file, request.range))
            });
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    }

    /// Empties the list of requests.
    pub fn forget(&self) {
        self.shared.requests.lock().expect("no panic").clear();
    }

    fn lock_models(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Files>> {
        self.shared.models.lock().expect("no panic")
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        shared.requests.lock().expect("no panic").push(request.clone());
        answer(stream, shared, &request)?;
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut range, mut authorization) = (None, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(Some(Request { method, path, range, authorization }))
}

fn answer(stream: &TcpStream, shared: &Shared, request: &Request) -> std::io::Result<()> {
    let path = request.path.split('?').next().unwrap_or_default();
    if let Some(seconds) = *shared.limit.lock().expect("no panic") {
        let limit = format!("RateLimit: \"api\";r=0;t={seconds}");
        return response(stream, request, "429 Too Many Requests", &[&limit], b"{}");
    }
    let models = shared.models.lock().expect("no panic").clone();
    if path == "/api/models" {
        return response(stream, request, "200 OK", &[], list(shared, &models).to_string().as_bytes());
    }
    let model = models.iter().find_map(|(name, files)| {
        let api = path.strip_prefix(&format!("/api/models/{name}"));
        let api = api.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let api = api.map(|rest| ("api", rest.to_owned()));
        // A single file is asked for by the name of the branch.
        let file = [COMMIT, "main"]
            .iter()
            .find_map(|revision| path.strip_prefix(&format!("/{name}/resolve/{revision}/")))
            .map(|rest| ("file", rest.to_owned()));
        api.or(file).map(|(kind, rest)| (kind, rest, name, files))
    });
    match model {
        Some(("api", rest, _, files)) if rest.starts_with("/tree/") => {
            let tree: Vec<_> = files.iter().map(|(file, bytes)| tree_entry(file, bytes)).collect();
            response(stream, request, "200 OK", &[], json!(tree).to_string().as_bytes())
        }
        Some(("api", _, name, files)) => {
            let siblings: Vec<_> = files.keys().map(|file| json!({ "rfilename": file })).collect();
            let facts = json!({ "id": name, "sha": COMMIT, "siblings": siblings, "private": false, "tags": [], "downloads": 0 });
            response(stream, request, "200 OK", &[], facts.to_string().as_bytes())
        }
        Some((_, file, _, files)) if files.contains_key(&file) => {
            send_file(stream, shared, request, &file, &files[&file])
        }
        _ => {
            let headers = ["X-Error-Code: RepoNotFound", "X-Error-Message: Repository not found"];
            response(stream, request, "404 Not Found", &headers, br#"{"error":"Repository not found"}"#)
        }
    }
}

/// Lists every model, whatever is searched for.
fn list(shared: &Shared, models: &BTreeMap<String, Files>) -> Value {
    let facts = shared.facts.lock().expect("no panic");
    let listed = models.iter().map(|(name, files)| {
        let siblings: Vec<_> = files.keys().map(|file| json!({ "rfilename": file })).collect();
        let mut model = json!({ "id": name, "siblings": siblings });
        for (key, value) in facts.get(name).and_then(Value::as_object).into_iter().flatten() {
            model[key] = value.clone();
        }
        model
    });
    listed.collect()
}

fn is_large(file: &str) -> bool {
    [".safetensors", ".gguf"].iter().any(|end| file.ends_with(end))
}

/// Weights are large files, which the hub keeps elsewhere.
fn tree_entry(file: &str, bytes: &[u8]) -> serde_json::Value {
    let mut entry = json!({ "type": "file", "path": file, "size": bytes.len(), "oid": &hash(bytes)[..40] });
    if is_large(file) {
        entry["lfs"] = json!({ "oid": hash(bytes), "size": bytes.len(), "pointerSize": 130 });
    }
    entry
}

fn send_file(
    mut stream: &TcpStream,
    shared: &Shared,
    request: &Request,
    file: &str,
    bytes: &[u8],
) -> std::io::Result<()> {
    let etag = if is_large(file) { hash(bytes) } else { hash(bytes)[..40].to_owned() };
    let start = request
        .range
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let start: usize = start.unwrap_or(0).min(bytes.len());
    let status = if request.range.is_some() { "206 Partial Content" } else { "200 OK" };
    let content_range =
        format!("Content-Range: bytes {start}-{}/{}", bytes.len().saturating_sub(1), bytes.len());
    let mut headers = vec![
        format!("ETag: \"{etag}\""),
        format!("X-Repo-Commit: {COMMIT}"),
        "Accept-Ranges: bytes".to_owned(),
    ];
    if request.range.is_some() {
        headers.push(content_range);
    }
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let fault = shared.faults.lock().expect("no panic").get(file).copied();
    let length = match fault {
        Some(Fault::Gated) => {
            let headers = ["X-Error-Code: GatedRepo", "X-Error-Message: Access to model is restricted"];
            return response(stream, request, "403 Forbidden", &headers, b"{}");
        }
        Some(Fault::CutOnce(length) | Fault::StallAfter(length)) if request.method == "GET" => length,
        _ => return response(stream, request, status, &headers, &bytes[start..]),
    };
    stream.write_all(head(status, &headers, bytes.len() - start).as_bytes())?;
    stream.write_all(&bytes[start..length.max(start).min(bytes.len())])?;
    stream.flush()?;
    if matches!(fault, Some(Fault::CutOnce(_))) {
        shared.faults.lock().expect("no panic").remove(file);
        return stream.shutdown(std::net::Shutdown::Both);
    }
    // Until the client closes the connection.
    while stream.peek(&mut [0])? > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn response(
    mut stream: &TcpStream,
    request: &Request,
    status: &str,
    headers: &[&str],
    body: &[u8],
) -> std::io::Result<()> {
    stream.write_all(head(status, headers, body.len()).as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(body)?;
    }
    stream.flush()
}

fn head(status: &str, headers: &[&str], length: usize) -> String {
    let headers = headers.iter().fold(String::new(), |text, header| text + header + "\r\n");
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
    )
}

/// A text as long as a SHA-256, different for each file. The tool does not verify it.
fn hash(bytes: &[u8]) -> String {
    let part = |seed: u64| {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        bytes.iter().step_by(bytes.len() / 1000 + 1).fold(seed ^ bytes.len() as u64, mix)
    };
    format!("{:016x}{:016x}{:016x}{:016x}", part(1), part(2), part(3), part(4))
}
