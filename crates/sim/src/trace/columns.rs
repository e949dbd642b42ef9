//! Numbers side by side that stay within 80 columns: what does not fit beside the others comes below them.

/// A terminal that nobody made wider.
const WIDTH: usize = 80;
/// Blanks between two columns.
const GAP: usize = 2;

/// A column of numbers, and beside each what it is by that of another column.
#[derive(Debug, Clone, Default)]
pub struct Column {
    /// What stands above it.
    pub head: String,
    /// A number and its ratio for each row; empty where there is none.
    pub cells: Vec<(String, String)>,
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

impl Column {
    /// How wide its head is, its numbers, and its ratios with the gap before them.
    fn widths(&self) -> (usize, usize) {
        let widest =
            |of: fn(&(String, String)) -> &String| self.cells.iter().map(|cell| chars(of(cell))).max();
        let ratio = widest(|(_, ratio)| ratio)
            .filter(|ratio| *ratio > 0)
            .map_or(0, |ratio| ratio + GAP);
        let head = self.head.lines().map(chars).max().unwrap_or(0);
        (
            widest(|(number, _)| number)
                .unwrap_or(0)
                .max(head.saturating_sub(ratio)),
            ratio,
        )
    }

    fn width(&self) -> usize {
        let (number, ratio) = self.widths();
        GAP + number + ratio
    }

    /// Its part of a row, as wide as it is.
    fn cell(&self, row: usize) -> String {
        let (number, ratio) = self.widths();
        let (first, second) = &self.cells[row];
        format!("{:GAP$}{first:>number$}{second:>ratio$}", "")
    }

    /// Its part of a line of the head, the last of which is right above the numbers.
    fn head(&self, line: usize, lines: usize) -> String {
        let above = lines - self.head.lines().count();
        let words = line
            .checked_sub(above)
            .and_then(|line| self.head.lines().nth(line))
            .unwrap_or_default();
        format!("{words:>width$}", width = self.width())
    }

    fn is_empty(&self, row: usize) -> bool {
        let (first, second) = &self.cells[row];
        first.is_empty() && second.is_empty()
    }
}

/// Rows with these names at the left, in as many blocks as are needed. A name without any number is a heading.
pub fn blocks(rows: &[&str], columns: &[Column]) -> String {
    let heading = |row: usize| columns.iter().all(|column| column.is_empty(row));
    let named = rows.iter().enumerate().filter(|(row, _)| !heading(*row));
    let left = named.map(|(_, name)| chars(name)).max().unwrap_or(0);
    let heads = columns
        .iter()
        .map(|column| column.head.lines().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    let mut rest = columns;
    while !rest.is_empty() {
        let mut room = WIDTH.saturating_sub(left);
        let fit = rest.iter().take_while(|column| {
            let fits = column.width() <= room;
            room = room.saturating_sub(column.width());
            fits
        });
        // One at least: or nothing would ever be shown.
        let (now, later) = rest.split_at(fit.count().max(1));
        rest = later;
        if !text.is_empty() {
            text.push('\n');
        }
        let mut line = |name: &str, cell: &dyn Fn(&Column) -> String| {
            let all = format!("{name:<left$}{}", now.iter().map(cell).collect::<String>());
            text.push_str(all.trim_end());
            text.push('\n');
        };
        for at in 0..heads {
            line("", &|column| column.head(at, heads));
        }
        for (row, name) in rows.iter().enumerate() {
            line(name, &|column| column.cell(row));
        }
    }
    text
}

/// Words in lines that fit.
pub fn wrapped(words: &str) -> String {
    let mut text = String::new();
    let mut used = 0;
    for word in words.split_whitespace() {
        let fits = used + 1 + chars(word) <= WIDTH;
        if used > 0 {
            text.push(if fits { ' ' } else { '\n' });
        }
        used = if fits && used > 0 { used + 1 } else { 0 } + chars(word);
        text.push_str(word);
    }
    text.push('\n');
    text
}

/// A number with so many digits as people read: three, or all before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The same for a ratio.
pub fn ratio(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..0.001 => "<0.001".to_owned(),
        ..0.0995 => format!("{value:.3}"),
        _ => number(value),
    }
}

/// A share of all, in percent.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Seconds in the unit that suits them.
pub fn time(seconds: f64) -> String {
    match seconds {
        ..99.5 => format!("{seconds:.0} s"),
        ..5970.0 => format!("{:.0} min", seconds / 60.0),
        ..86_400.0 => format!("{:.1} h", seconds / 3600.0),
        ..356_400.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.1} d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(head: &str, cells: &[(&str, &str)]) -> Column {
        let cells = cells
            .iter()
            .map(|(number, ratio)| ((*number).to_owned(), (*ratio).to_owned()));
        Column {
            head: head.into(),
            cells: cells.collect(),
        }
    }

    #[test]
    fn numbers_stand_below_each_other() {
        let columns = [
            column("easy", &[("1.00", ""), ("", ""), ("12 min", "")]),
            column(
                "by class\ngreedypm*",
                &[("10.5", "0.1"), ("", ""), ("9 s", "1.25")],
            ),
        ];
        let text = blocks(&["mean", "a name that is a heading", "median"], &columns);
        assert_eq!(
            text,
            "                  by class\n\
             \u{20}         easy   greedypm*\n\
             mean      1.00  10.5   0.1\n\
             a name that is a heading\n\
             median  12 min   9 s  1.25\n"
        );
    }

    #[test]
    fn what_does_not_fit_comes_below() {
        let columns = vec![column("a-name-of-twenty-char", &[("1.00", "0.5")]); 7];
        let text = blocks(&["mean"], &columns);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(text.matches("a-name-of").count(), 7);
        // Three, three and one, each with a head, and a line between.
        assert_eq!(text.lines().count(), 3 * 2 + 2, "{text}");
        let wide = [column(&"x".repeat(100), &[("1", "")])];
        assert_eq!(blocks(&["mean"], &wide).lines().count(), 2);
        assert_eq!(blocks(&[], &[]), "");
    }

    #[test]
    fn words_are_wrapped_between_words() {
        let text = wrapped(&"word ".repeat(40));
        assert!(
            text.lines()
                .all(|line| line.len() <= WIDTH && !line.ends_with(' ')),
            "{text}"
        );
        assert_eq!(text.lines().next().map(str::len), Some(79));
        assert_eq!(wrapped(""), "\n");
    }

    #[test]
    fn numbers_have_three_digits_or_more() {
        assert_eq!(
            [1.0, 9.99, 9.996, 99.94, 99.96, 12_345.6].map(number),
            ["1.00", "9.99", "10.0", "99.9", "100", "12346"]
        );
        assert_eq!(
            [0.0, 0.0001, 0.0183, 0.5, 12.3].map(ratio),
            ["0", "<0.001", "0.018", "0.50", "12.3"]
        );
        assert_eq!(
            [0.4, 99.4, 2460.0, 12_000.0, 200_000.0, 1e6].map(time),
            ["0 s", "99 s", "41 min", "3.3 h", "56 h", "11.6 d"]
        );
        assert_eq!(percent(0.1234), "12.3 %");
    }
}
