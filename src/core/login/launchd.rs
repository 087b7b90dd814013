//! The launchd agent that starts a service, as text (launchd.plist(5), launchctl(1)).

use std::path::Path;

use super::{Job, MARK, OnFailure, Order};

/// The directory, in the home directory, of the logs: launchd can write there wherever the configuration is.
pub(super) const LOGS: &str = "Library/Logs/fusion";

/// The domains of a user: that of the graphical session, then that of every session, also one over the network.
pub(super) const DOMAINS: [&str; 2] = ["gui", "user"];

/// Exit codes of launchctl for a domain that does not exist: ENODOMAIN and "Domain does not support specified action".
pub(super) const NO_DOMAIN: [i32; 2] = [112, 125];

/// Exit codes of `launchctl bootstrap` while an agent with the same label is being unloaded: EIO and EINPROGRESS.
pub(super) const STILL_UNLOADING: [i32; 2] = [5, 37];

/// Exit code of a job whose log or directory launchd cannot open (`EX_CONFIG`).
const CANNOT_OPEN: &str = "78";

/// Directories of the home directory that launchd's jobs may read only after the user has allowed it.
const GUARDED: [&str; 3] = ["Desktop", "Documents", "Downloads"];

/// Returns whether launchd's jobs may be refused what is at `path`: it is on another volume or guarded.
pub(super) fn may_refuse(path: &Path, home: &Path) -> bool {
    path.starts_with("/Volumes") || GUARDED.iter().any(|name| path.starts_with(home.join(name)))
}

/// Returns whether the user has switched the agent off, as `launchctl print-disabled` tells it.
pub(super) fn is_switched_off(printed: &str, service: &str) -> bool {
    let label = format!("\"{}\"", label(service));
    let value = printed.lines().find_map(|line| line.trim().strip_prefix(&label)?.trim().strip_prefix("=>"));
    value.is_some_and(|value| matches!(value.trim(), "disabled" | "true"))
}

/// Returns whether the first run of the agent failed because launchd could not open a file of it, as `launchctl print`
/// tells it.
pub(super) fn could_not_open(printed: &str) -> bool {
    let value = printed.lines().find_map(|line| line.trim().strip_prefix("last exit code = "));
    value.is_some_and(|value| value.split(':').next() == Some(CANNOT_OPEN))
}

/// Returns the label of the agent.
pub(super) fn label(service: &str) -> String {
    format!("fusion.{service}")
}

/// Returns the agent's property list.
///
/// `up` ends as soon as the service is ready; without `AbandonProcessGroup`, launchd might then stop the service.
/// Without `ProcessType`, launchd throttles CPU and I/O.
pub(super) fn agent(job: &Job, fusion: &str, log: &str) -> String {
    let service = &job.service;
    let environment: Vec<String> = job
        .environment
        .iter()
        .map(|(name, value)| {
            format!("\t\t<key>{}</key>\n\t\t<string>{}</string>\n", escaped(name), escaped(value))
        })
        .collect();
    let environment = environment.concat();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!-- {MARK} {service} enable`, removed by `fusion {service} disable`. -->\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n\
         <dict>\n\
         \t<key>Label</key>\n\
         \t<string>{label}</string>\n\
         \t<key>ProgramArguments</key>\n\
         \t<array>\n\
         \t\t<string>{fusion}</string>\n\
         \t\t<string>{service}</string>\n\
         \t\t<string>up</string>\n\
         \t</array>\n\
         \t<key>EnvironmentVariables</key>\n\
         \t<dict>\n\
         {environment}\
         \t</dict>\n\
         \t<key>RunAtLoad</key>\n\
         \t<true/>\n\
         \t<key>AbandonProcessGroup</key>\n\
         \t<true/>\n\
         \t<key>ProcessType</key>\n\
         \t<string>Interactive</string>\n\
         \t<key>LimitLoadToSessionType</key>\n\
         \t<array>\n\
         \t\t<string>Aqua</string>\n\
         \t\t<string>Background</string>\n\
         \t</array>\n\
         \t<key>StandardOutPath</key>\n\
         \t<string>{log}</string>\n\
         \t<key>StandardErrorPath</key>\n\
         \t<string>{log}</string>\n\
         </dict>\n\
         </plist>\n",
        label = label(service),
        fusion = escaped(fusion),
        log = escaped(log),
    )
}

/// Returns the commands that load the agent into `domain`: a loaded one is unloaded first, and one that the user disabled
/// is enabled.
pub(super) fn load(service: &str, file: &str, domain: &str, user: u32) -> Vec<Order> {
    let target = target(service, domain, user);
    let (mut orders, _) = unload(service, user);
    orders.extend([
        // `bootout` returns before the label is free.
        Order { on_failure: OnFailure::Expected, ..Order::new(&["print", &target]) },
        Order::new(&["enable", &target]),
        Order {
            on_failure: OnFailure::TryAgain(&STILL_UNLOADING),
            ..Order::new(&["bootstrap", &format!("{domain}/{user}"), file])
        },
    ]);
    orders
}

pub(super) fn unload(service: &str, user: u32) -> (Vec<Order>, Vec<Order>) {
    let bootout = |domain: &&str| Order::may_fail(&["bootout", &target(service, domain, user)]);
    (DOMAINS.iter().map(bootout).collect(), Vec::new())
}

pub(super) fn target(service: &str, domain: &str, user: u32) -> String {
    format!("{domain}/{user}/{}", label(service))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;

    #[test]
    fn other_volumes_and_guarded_directories_may_be_refused() {
        let home = Path::new("/Users/me");
        for (path, refused) in [
            ("/Volumes/Models/hub", true),
            ("/Users/me/Documents/fusion", true),
            ("/Users/me/Desktop", true),
            ("/Users/me/Library/Application Support/fusion", false),
            ("/Users/me/.cache/huggingface/hub", false),
            ("/Users/other/Documents", false),
        ] {
            assert_eq!(may_refuse(Path::new(path), home), refused, "{path}");
        }
    }

    #[test]
    fn an_agent_that_is_switched_off_is_seen() {
        let printed = |state: &str| {
            format!("disabled services = {{\n\t\"a\" => enabled\n\t\"fusion.mlx\" => {state}\n}}\n")
        };
        for (state, off) in [("disabled", true), ("true", true), ("enabled", false), ("false", false)] {
            assert_eq!(is_switched_off(&printed(state), "mlx"), off, "{state}");
            assert!(!is_switched_off(&printed(state), "mlx-2"), "{state}");
        }
        assert!(!is_switched_off("", "mlx"));
    }

    #[test]
    fn the_agent() {
        insta::assert_snapshot!(agent(&job(), "/opt/a & b/fusion", "/config/mlx/login.log"), @r#"
<?xml version="1.0" encoding="UTF-8"?>
<!-- Written by `fusion mlx enable`, removed by `fusion mlx disable`. -->
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>fusion.mlx</string>
	<key>ProgramArguments</key>
	<array>
		<string>/opt/a &amp; b/fusion</string>
		<string>mlx</string>
		<string>up</string>
	</array>
	<key>EnvironmentVariables</key>
	<dict>
		<key>PATH</key>
		<string>/usr/bin:/opt/100%</string>
		<key>FUSION_CONFIG_DIR</key>
		<string>/home/a "b" &amp; &lt;c&gt;</string>
	</dict>
	<key>RunAtLoad</key>
	<true/>
	<key>AbandonProcessGroup</key>
	<true/>
	<key>ProcessType</key>
	<string>Interactive</string>
	<key>LimitLoadToSessionType</key>
	<array>
		<string>Aqua</string>
		<string>Background</string>
	</array>
	<key>StandardOutPath</key>
	<string>/config/mlx/login.log</string>
	<key>StandardErrorPath</key>
	<string>/config/mlx/login.log</string>
</dict>
</plist>
"#);
    }
}
