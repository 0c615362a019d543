//! A chart as SVG. Lines and bars scale with the page while text keeps its size: axis labels are positioned in
//! percent, and lines are in a nested SVG that is scaled with non-scaling strokes.

use super::markup::{Escaped, add};
use super::scale::Tick;

/// The size of the nested SVG in its own units.
const SIZE: f64 = 1000.0;

/// A line. Points are between 0 and 1, from the left and from the bottom. Each piece after a gap is separate.
pub struct Line {
    /// The name in the legend.
    pub name: String,
    /// The CSS class: `a` to `f`.
    pub class: &'static str,
    pub pieces: Vec<Vec<(f64, f64)>>,
}

/// A vertical band with a tooltip.
pub struct Spot {
    pub from: f64,
    pub to: f64,
    /// The height of its bar, in a histogram.
    pub bar: Option<f64>,
    pub text: String,
}

/// A chart with a heading, a description, and a table of its data.
pub struct Chart<'a> {
    /// Unique on the page.
    pub id: &'a str,
    pub heading: &'a str,
    /// What it shows, and how to read it.
    pub description: String,
    pub x_name: &'a str,
    pub x_ticks: Vec<Tick>,
    pub y_ticks: Vec<Tick>,
    pub lines: Vec<Line>,
    /// From left to right.
    pub spots: Vec<Spot>,
    /// The data as a table.
    pub table: String,
    /// Whether the table is initially visible.
    pub is_table_open: bool,
}

impl Chart<'_> {
    /// The chart as HTML.
    pub fn render(&self) -> String {
        let mut html = String::new();
        let (id, heading) = (self.id, Escaped(self.heading));
        let class = if self.is_table_open { " class=\"beside\"" } else { "" };
        add(
            &mut html,
            format_args!(
                "<figure id=\"{id}\"{class}>\n<figcaption><h2 id=\"{id}-heading\">{heading}</h2>\
                 <p id=\"{id}-description\">{}</p></figcaption>\n",
                Escaped(&self.description)
            ),
        );
        if self.lines.len() > 1 {
            html.push_str("<ul class=\"legend\">");
            for line in &self.lines {
                add(&mut html, format_args!("<li class=\"{}\">{}</li>", line.class, Escaped(&line.name)));
            }
            html.push_str("</ul>\n");
        }
        add(
            &mut html,
            format_args!(
                "<div class=\"plot\"><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100%\" height=\"100%\" \
                 role=\"img\" aria-labelledby=\"{id}-heading\" aria-describedby=\"{id}-description\">\n"
            ),
        );
        self.add_axes(&mut html);
        self.add_inner(&mut html);
        let open = if self.is_table_open { " open=\"open\"" } else { "" };
        add(
            &mut html,
            format_args!(
                "</svg></div>\n<details{open}><summary>As a table</summary>\n{}</details>\n</figure>\n",
                self.table
            ),
        );
        html
    }

    fn add_axes(&self, html: &mut String) {
        for tick in &self.y_ticks {
            let (y, label) = (percent(1.0 - tick.at), Escaped(&tick.label));
            add(
                html,
                format_args!(
                    "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/>\
                     <text class=\"y\" x=\"-8\" y=\"{y}\" dy=\"4\">{label}</text>\n"
                ),
            );
        }
        let is_crowded = self.x_ticks.len() > 5;
        for (index, tick) in self.x_ticks.iter().enumerate() {
            let (x, label) = (percent(tick.at), Escaped(&tick.label));
            // On narrow screens, only every other label is shown.
            let class = if is_crowded && index % 2 == 1 { "x spare" } else { "x" };
            add(
                html,
                format_args!(
                    "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"100%\"/>\
                     <text class=\"{class}\" x=\"{x}\" y=\"100%\" dy=\"18\">{label}</text>\n"
                ),
            );
        }
        let name = Escaped(self.x_name);
        add(html, format_args!("<text class=\"name\" x=\"100%\" y=\"100%\" dy=\"36\">{name}</text>\n"));
    }

    fn add_inner(&self, html: &mut String) {
        add(
            html,
            format_args!(
                "<svg width=\"100%\" height=\"100%\" viewBox=\"0 0 {SIZE} {SIZE}\" preserveAspectRatio=\"none\">\n"
            ),
        );
        for spot in &self.spots {
            let Some(height) = spot.bar.filter(|height| *height > 0.0) else { continue };
            // Non-zero bars are always visible, with small gaps between them.
            let height = (height * SIZE).max(6.0);
            let width = (spot.to - spot.from) * SIZE;
            add(
                html,
                format_args!(
                    "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>\n",
                    spot.from * SIZE + width * 0.04,
                    SIZE - height,
                    width * 0.92
                ),
            );
        }
        for line in &self.lines {
            let mut path = String::new();
            for piece in &line.pieces {
                for (index, (x, y)) in piece.iter().enumerate() {
                    let command = if index == 0 { 'M' } else { 'L' };
                    add(&mut path, format_args!("{command}{:.1} {:.1}", x * SIZE, (1.0 - y) * SIZE));
                }
            }
            if !path.is_empty() {
                add(html, format_args!("<path class=\"{}\" d=\"{path}\"/>\n", line.class));
            }
        }
        for spot in &self.spots {
            add(
                html,
                format_args!(
                    "<rect class=\"spot\" x=\"{:.1}\" y=\"0\" width=\"{:.1}\" height=\"{SIZE}\">\
                     <title>{}</title></rect>\n",
                    spot.from * SIZE,
                    (spot.to - spot.from) * SIZE,
                    Escaped(&spot.text)
                ),
            );
        }
        html.push_str("</svg>\n");
    }
}

fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// A step line through values over time ranges, with gaps where there is no value.
pub fn steps(values: impl IntoIterator<Item = (f64, f64, Option<f64>)>) -> Vec<Vec<(f64, f64)>> {
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut is_open = false;
    for (from, to, value) in values {
        let Some(value) = value else {
            is_open = false;
            continue;
        };
        if !is_open {
            pieces.push(Vec::new());
            is_open = true;
        }
        if let Some(piece) = pieces.last_mut() {
            piece.extend([(from, value), (to, value)]);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_gaps_where_there_is_no_value() {
        let values = [(0.0, 0.2, Some(0.5)), (0.2, 0.4, Some(0.7)), (0.4, 0.6, None), (0.6, 1.0, Some(0.1))];
        assert_eq!(
            steps(values),
            [vec![(0.0, 0.5), (0.2, 0.5), (0.2, 0.7), (0.4, 0.7)], vec![(0.6, 0.1), (1.0, 0.1)]]
        );
    }
}
