//! The chart of the ratios, as SVG.

use std::fmt::Write as _;

use crate::row::{Other, Row};

const WIDTH: f64 = 910.0;
const TOP: f64 = 56.0;
const ROW_HEIGHT: f64 = 24.0;
const BAR_HEIGHT: f64 = 14.0;
/// Where bars begin, how long the longest is, and where the ratios stand.
const BAR_START: f64 = 350.0;
const MAX_LENGTH: f64 = 320.0;
const RATIOS_START: f64 = 684.0;

/// Colours for light and for dark pages.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}\
.title{font-weight:600}.note{fill:#59636e}\
.bar{fill:#0969da}.over{fill:#9a6700}.one{stroke:#59636e;stroke-dasharray:3 3}\
@media(prefers-color-scheme:dark){\
text{fill:#e6edf3}.note{fill:#9198a1}.bar{fill:#4493f8}.over{fill:#d29922}.one{stroke:#9198a1}}";

/// Draws one bar for each row that is compared with something.
pub(crate) fn draw(rows: &[Row]) -> String {
    let compared: Vec<(&str, &Other)> =
        rows.iter().filter_map(|row| Some((row.label, row.other.as_ref()?))).collect();
    let length_of_one = MAX_LENGTH / compared.iter().map(|(_, other)| other.ratio).fold(1.0, f64::max);
    let mut top = TOP;
    let mut bars = String::new();
    for (label, other) in &compared {
        bar(&mut bars, top, label, other, length_of_one);
        top += ROW_HEIGHT;
    }
    let one = BAR_START + length_of_one;
    let height = top + 8.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"What fusion costs, divided by what other programs cost\">\n\
         <style>{STYLE}</style>\n\
         <text class=\"title\" x=\"12\" y=\"24\">What fusion costs, divided by what the other program costs</text>\n\
         <text class=\"note\" x=\"{one:.1}\" y=\"46\" text-anchor=\"middle\">1: equal</text>\n\
         {bars}\
         <line class=\"one\" x1=\"{one:.1}\" y1=\"50\" x2=\"{one:.1}\" y2=\"{top}\"/>\n\
         </svg>\n"
    )
}

fn bar(bars: &mut String, top: f64, label: &str, Other { name, ratio, .. }: &Other, length_of_one: f64) {
    let length = ratio * length_of_one;
    let class = if *ratio <= 1.0 { "bar" } else { "over" };
    let text = top + BAR_HEIGHT - 2.0;
    // Writing to a string cannot fail.
    let _ = write!(
        bars,
        "<text x=\"12\" y=\"{text}\">{label}</text>\n\
         <rect class=\"{class}\" x=\"{BAR_START}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\"/>\n\
         <text x=\"{RATIOS_START}\" y=\"{text}\">{ratio:.2} <tspan class=\"note\">× {name}</tspan></text>\n"
    );
}
