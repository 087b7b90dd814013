//! Checks that an installation works: starts the server once, without a model, until it responds.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::InstallError;
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::cancel::CancelToken;
use crate::core::helper::{Helper, HelperOutput};
use crate::core::models::ModelPlaces;
use crate::core::runtimes::{Recognition, Runtime};

/// Timeout of the check. The first start compiles every Python module that it imports.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// Pause between two probes, and timeout of one probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts `program` as the server of `runtime` on a free port, waits for its first response, and stops it.
pub(super) fn starts(
    runtime: &dyn Runtime,
    program: &Path,
    directory: &Path,
    cancel: &CancelToken,
) -> Result<(), InstallError> {
    let cannot_run = |source| InstallError::Run { program: program.to_owned(), source };
    let address = Address { host: "127.0.0.1".to_owned(), port: free_port().map_err(cannot_run)? };
    let launch = runtime.launch(&address, None, &ModelPlaces::default());

    let mut command = Command::new(program);
    command
        .args(runtime.program_args())
        .args(launch.args)
        .envs(launch.env)
        .current_dir(directory)
        .stdin(Stdio::null());
    let mut server = Helper::start(&mut command, HelperOutput::Keep).map_err(cannot_run)?;
    let answered = wait_for_response(runtime, &address, &mut server, cancel);
    server.stop();
    answered.map_err(|silence| match silence {
        NoResponse::Interrupted => InstallError::Cancelled,
        NoResponse::Reason(reason) => {
            InstallError::DoesNotStart { program: program.to_owned(), reason, output: server.last_lines() }
        }
    })
}

/// Why there was no response.
enum NoResponse {
    Interrupted,
    Reason(String),
}

fn wait_for_response(
    runtime: &dyn Runtime,
    address: &Address,
    server: &mut Helper,
    cancel: &CancelToken,
) -> Result<(), NoResponse> {
    let deadline = Instant::now() + START_TIMEOUT;
    let client = Client::with_timeout(address, PROBE_TIMEOUT);
    let probe = runtime.status_probe();
    loop {
        match server.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Err(NoResponse::Reason(format!("it ended with {status}"))),
            Err(error) => return Err(NoResponse::Reason(error.to_string())),
        }
        let response = client.get(probe.path);
        if response.is_ok_and(|response| matches!((probe.read)(&response), Recognition::Ready(_))) {
            return Ok(());
        }
        if cancel.is_cancelled() {
            return Err(NoResponse::Interrupted);
        }
        if Instant::now() > deadline {
            return Err(NoResponse::Reason(format!(
                "no response within {} seconds",
                START_TIMEOUT.as_secs()
            )));
        }
        std::thread::sleep(PROBE_INTERVAL);
    }
}

/// Returns a port on which no process listens now.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
