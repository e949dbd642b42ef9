//! The few shapes that pictures need, as text.

use std::fmt::Write as _;

/// Where words stand at their point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture that is drawn from the back to the front.
#[derive(Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

/// A number as short as it can be said: a tenth of a pixel is enough.
fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Words of others in XML. What XML has no place for at all is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

impl Svg {
    /// An empty picture, with its title at the top and a line below that.
    pub fn new(width: f64, height: f64, title: &str, below: &str) -> Self {
        let mut svg = Self {
            width,
            height,
            title: escaped(title),
            body: String::new(),
        };
        svg.styled_text(
            (16.0, 24.0),
            title,
            Anchor::Start,
            r#"font-size="16" font-weight="bold""#,
        );
        svg.text((16.0, 42.0), below, Anchor::Start);
        svg
    }

    fn styled_text(&mut self, (x, y): (f64, f64), text: &str, anchor: Anchor, style: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, text) = (short(x), short(y), escaped(text));
        let _ = writeln!(
            self.body,
            r#"<text x="{x}" y="{y}" text-anchor="{anchor}" {style}>{text}</text>"#
        );
    }

    /// Words at a point: where their line begins, ends or has its middle.
    pub fn text(&mut self, at: (f64, f64), text: &str, anchor: Anchor) {
        self.styled_text(at, text, anchor, r#"font-size="12""#);
    }

    /// Small words within a shape, dark or white.
    pub fn small(&mut self, at: (f64, f64), text: &str, white: bool) {
        let style = if white {
            r##"font-size="9" fill="#fff""##
        } else {
            r#"font-size="9""#
        };
        self.styled_text(at, text, Anchor::Middle, style);
    }

    /// Words that are read from below, with their middle at a point.
    pub fn upright(&mut self, (x, y): (f64, f64), text: &str) {
        let turned = format!(
            r#"font-size="12" transform="rotate(-90 {} {})""#,
            short(x),
            short(y)
        );
        self.styled_text((x, y), text, Anchor::Middle, &turned);
    }

    /// A straight line between two points.
    pub fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), stroke: &str) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(short);
        let _ = writeln!(
            self.body,
            r#"<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{stroke}"/>"#
        );
    }

    /// A line through points, with dashes (none if empty).
    pub fn path(&mut self, points: &[(f64, f64)], stroke: &str, dashes: &str) {
        if points.is_empty() {
            return;
        }
        let mut through = String::new();
        for (x, y) in points {
            let _ = write!(through, "{},{} ", short(*x), short(*y));
        }
        let dashes = if dashes.is_empty() {
            String::new()
        } else {
            format!(r#" stroke-dasharray="{dashes}""#)
        };
        let points = through.trim_end();
        let _ = writeln!(
            self.body,
            r#"<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="2"{dashes}/>"#
        );
    }

    /// The ground below a line that ends at both sides on it, lightly filled.
    pub fn area(&mut self, points: &[(f64, f64)], fill: &str, stroke: &str) {
        let corners = points.iter().map(|(x, y)| format!("{},{}", short(*x), short(*y)));
        let corners = corners.collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            self.body,
            r#"<polygon points="{corners}" fill="{fill}" stroke="{stroke}"/>"#
        );
    }

    /// A filled rectangle; `about` is shown by a browser where the pointer rests.
    pub fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str, about: &str) {
        let [x, y, width, height] = [x, y, width, height].map(short);
        let (open, end) = match about {
            "" => ("/>", String::new()),
            about => (">", format!("<title>{}</title></rect>", escaped(about))),
        };
        let _ = writeln!(
            self.body,
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"{open}{end}"#
        );
    }

    /// Its text, with the definitions of patterns that shapes are filled with.
    pub fn done(self, definitions: &str) -> String {
        let Self {
            width,
            height,
            title,
            body,
        } = self;
        let (width, height) = (short(width), short(height));
        format!(
            r##"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-family="Helvetica, Arial, 'Liberation Sans', sans-serif" fill="#222">
<title>{title}</title>
<defs>{definitions}</defs>
<rect width="100%" height="100%" fill="#fff"/>
{body}</svg>
"##
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_words_are_only_words() {
        assert_eq!([0.0, 1.25, 10.04, -3.0].map(short), ["0", "1.2", "10", "-3"]);
        assert_eq!(
            escaped("a<b> & \"c\"\x1b\u{ffff}"),
            "a&lt;b&gt; &amp; &quot;c&quot; "
        );
    }
}
