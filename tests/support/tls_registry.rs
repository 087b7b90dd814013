//! A registry of Ollama models on loopback, over TLS, which can damage or cut what it sends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::wait_until;

/// The registry, with its files: blobs, manifests, certificate, and one file for each fault.
pub struct TlsRegistry {
    directory: PathBuf,
    server: Child,
}

impl TlsRegistry {
    /// Starts an empty registry that keeps its files in `directory`.
    pub fn start(directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).expect("the sandbox is writable");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls_registry.py");
        let server = Command::new("python3").arg(script).arg(&directory).spawn().expect("Python runs");
        let registry = Self { directory, server };
        wait_until("the registry listens", || registry.directory.join("port").exists());
        registry
    }

    /// The certificate that a client must trust.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("certificate.pem")
    }

    /// Takes the model `tiny` and every blob of an Ollama store.
    pub fn take(&self, store: &Path) {
        fs::create_dir_all(self.directory.join("manifests/tiny")).expect("the sandbox is writable");
        fs::create_dir_all(self.directory.join("blobs")).expect("the sandbox is writable");
        let manifest = store.join("manifests/registry.ollama.ai/library/tiny/latest");
        fs::copy(manifest, self.directory.join("manifests/tiny/latest")).expect("a manifest");
        for blob in fs::read_dir(store.join("blobs")).expect("the blobs").flatten() {
            fs::copy(blob.path(), self.directory.join("blobs").join(blob.file_name())).expect("a blob");
        }
    }

    /// The name of the model for a client.
    pub fn model(&self) -> String {
        let port = fs::read_to_string(self.directory.join("port")).expect("the registry listens");
        format!("127.0.0.1:{port}/library/tiny")
    }

    pub fn set(&self, fault: &str, value: Option<&str>) {
        let file = self.directory.join(fault);
        match value {
            Some(value) => fs::write(file, value),
            None => fs::remove_file(file),
        }
        .expect("the sandbox is writable");
    }

    /// Whether a blob has sent all that it sends before it stalls.
    pub fn has_stalled(&self) -> bool {
        self.directory.join("stalled").exists()
    }

    /// The ranges of the weights that were asked for.
    pub fn ranges(&self) -> Vec<String> {
        let weights = fs::read_dir(self.directory.join("blobs")).expect("the blobs").flatten();
        let weights = weights.max_by_key(|blob| blob.metadata().expect("a file").len()).expect("a blob");
        let digest = weights.file_name().to_string_lossy().replace('-', ":");
        let requests = fs::read_to_string(self.directory.join("requests")).unwrap_or_default();
        let start = format!("GET /stored/{digest} ");
        requests.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }
}

impl Drop for TlsRegistry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
