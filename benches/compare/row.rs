//! One measurement beside what it is compared with.

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Milliseconds,
    Microseconds,
    Megabytes,
}

/// One measurement.
pub(crate) struct Row {
    pub(crate) label: &'static str,
    pub(crate) unit: Unit,
    pub(crate) fusion: f64,
    pub(crate) other: Option<Other>,
    pub(crate) aim: &'static str,
}

/// What fusion is compared with.
pub(crate) struct Other {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    /// What fusion costs, divided by what the other costs.
    pub(crate) ratio: f64,
}

impl Unit {
    /// Two digits that count, or the whole number.
    pub(crate) fn show(self, value: f64) -> String {
        let unit = match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Megabytes => "MB",
        };
        let decimals = match value {
            ..1.0 => 2,
            ..10.0 => 1,
            _ => 0,
        };
        format!("{value:.decimals$} {unit}")
    }
}
