//! The systemd user unit that starts a service, as text (systemd.unit(5), systemd.service(5)).

use super::{Job, MARK, Order};

/// Returns the name of the unit.
pub(super) fn unit_name(service: &str) -> String {
    format!("fusion-{service}.service")
}

/// Returns the content of the unit's file.
///
/// `up` ends as soon as the service is ready and leaves it in the unit's control group: a forking service. The unit
/// is therefore active exactly as long as the service runs, and ends at once if the service was already running.
/// There is no `ExecStop=`: systemd would run it when `fusion restart` stops the service, and so stop the new one.
/// systemd's own SIGTERM is what `down` sends too. `up` has its own timeout.
pub(super) fn unit(job: &Job, fusion: &str) -> String {
    let Job { service, display_name: title, .. } = job;
    let environment: Vec<String> = job
        .environment
        .iter()
        .map(|(name, value)| format!("Environment={}\n", quoted(&format!("{name}={value}"))))
        .collect();
    let (environment, title) = (environment.concat(), plain(title));
    format!(
        "# {MARK} {service} enable`, removed by `fusion {service} disable`.\n\
         [Unit]\n\
         Description={title}, started by fusion\n\
         \n\
         [Service]\n\
         Type=forking\n\
         ExecStart={} {service} up\n\
         TimeoutStartSec=infinity\n\
         {environment}\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        quoted(fusion),
    )
}

/// Returns the commands that load the unit. `--no-block`, because `up` may take minutes.
pub(super) fn load(service: &str) -> Vec<Order> {
    let unit = unit_name(service);
    vec![
        Order::new(&["--user", "daemon-reload"]),
        Order::new(&["--user", "enable", "--now", "--no-block", &unit]),
    ]
}

pub(super) fn unload(service: &str) -> (Vec<Order>, Vec<Order>) {
    let disable = Order::new(&["--user", "disable", &unit_name(service)]);
    (vec![disable], vec![Order::new(&["--user", "daemon-reload"])])
}

/// Returns a text in one line without specifiers.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ").replace('%', "%%")
}

/// Returns a word in double quotes, with C escapes, and with `%`, which introduces a specifier, doubled.
fn quoted(word: &str) -> String {
    let mut quoted = String::from("\"");
    for character in word.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '%' => quoted.push_str("%%"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;

    #[test]
    fn the_unit() {
        insta::assert_snapshot!(unit(&job(), "/opt/a b/100%/fusion"), @r#"
        # Written by `fusion mlx enable`, removed by `fusion mlx disable`.
        [Unit]
        Description=MLX, started by fusion

        [Service]
        Type=forking
        ExecStart="/opt/a b/100%%/fusion" mlx up
        TimeoutStartSec=infinity
        Environment="PATH=/usr/bin:/opt/100%%"
        Environment="FUSION_CONFIG_DIR=/home/a \"b\" & <c>"

        [Install]
        WantedBy=default.target
        "#);
    }

    #[test]
    fn a_name_with_newlines_adds_no_lines() {
        assert_eq!(plain("100% a\nExecStart=/bin/b"), "100%% a ExecStart=/bin/b");
    }

    #[test]
    fn quoted_word_keeps_quotes_and_newlines() {
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\nd""#);
    }
}
