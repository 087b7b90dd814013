//! The systemd user unit that starts a runtime, as text (systemd.unit(5), systemd.service(5)).

use super::{Job, MARK, Order};

/// The unit of `runtime`.
pub(super) fn unit_name(runtime: &str) -> String {
    format!("fusion-{runtime}.service")
}

/// The unit's file.
///
/// `up` ends as soon as the runtime is ready and leaves it behind in the unit's control group: a forking service.
/// So the unit is active exactly as long as what it started lives, whoever ends it, and ends at once when `up` found
/// the runtime up already. There is no `ExecStop=`: systemd would run it after `fusion restart` ended the runtime,
/// and so stop the new one; systemd's own SIGTERM is what `down` sends too. `up` has a time limit of its own.
pub(super) fn unit(job: &Job, fusion: &str) -> String {
    let Job { service: runtime, display_name: title, .. } = job;
    let environment: Vec<String> = job
        .environment
        .iter()
        .map(|(name, value)| format!("Environment={}\n", quoted(&format!("{name}={value}"))))
        .collect();
    let environment = environment.concat();
    format!(
        "# {MARK} {runtime} enable`, removed by `fusion {runtime} disable`.\n\
         [Unit]\n\
         Description={title}, started by fusion\n\
         \n\
         [Service]\n\
         Type=forking\n\
         ExecStart={} {runtime} up\n\
         TimeoutStartSec=infinity\n\
         {environment}\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        quoted(fusion),
    )
}

/// `--no-block`: `up` may take minutes.
pub(super) fn load(runtime: &str) -> Vec<Order> {
    let unit = unit_name(runtime);
    vec![
        Order::new(&["--user", "daemon-reload"]),
        Order::new(&["--user", "enable", "--now", "--no-block", &unit]),
    ]
}

pub(super) fn unload(runtime: &str) -> (Vec<Order>, Vec<Order>) {
    let disable = Order::new(&["--user", "disable", &unit_name(runtime)]);
    (vec![disable], vec![Order::new(&["--user", "daemon-reload"])])
}

/// A word in double quotes, with C escapes, and with `%`, which introduces a specifier, doubled.
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
    fn quotes_backslashes_and_newlines_stay_inside_the_word() {
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\nd""#);
    }
}
