//! Text for a terminal: lines, tables, tones. Pure: what is written always has colours, and whoever prints it strips them where they
//! do not belong.

use std::fmt;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A column of a table is never wider than this, unless everything is to be shown.
const CELL: usize = 90;

/// What a word is to be taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Under way, or not certain.
    Busy,
    /// Wrong.
    Bad,
    /// Beside the point.
    Faint,
    /// The head of something.
    Head,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Busy => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Head => Style::new().bold(),
        }
    }
}

/// A piece of text with a tone. It has no control characters, whoever wrote it: what an object says must not steer a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    text: String,
    tone: Tone,
}

impl Piece {
    /// With a tone.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: clean(text.into()), tone }
    }

    fn width(&self) -> usize {
        self.text.width()
    }

    fn cut(&mut self, width: usize) {
        self.text = cut(&self.text, width);
    }
}

impl From<&str> for Piece {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<Option<String>> for Piece {
    fn from(text: Option<String>) -> Self {
        Self::new(text.unwrap_or_default(), Tone::Plain)
    }
}

impl From<&Option<String>> for Piece {
    fn from(text: &Option<String>) -> Self {
        Self::from(text.as_deref().unwrap_or_default())
    }
}

impl From<Option<i64>> for Piece {
    fn from(number: Option<i64>) -> Self {
        Self::from(number.map(|number| number.to_string()))
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = self.tone.style();
        write!(f, "{style}{}{style:#}", self.text)
    }
}

fn clean(text: String) -> String {
    if text.contains(char::is_control) {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    } else {
        text
    }
}

/// The beginning of a text that is too wide, as a terminal shows it.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut taken = 0;
    let fits = |c: &char| {
        taken += c.width().unwrap_or(0);
        taken < width
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    short
}

/// Where the words of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a head. A column in which nothing stands is left out.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Piece>>,
}

impl Table {
    /// With columns of words.
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.iter().map(|name| (*name, Align::Left)).collect(), rows: Vec::new() }
    }

    /// The column of this name has numbers.
    pub fn right(mut self, column: &str) -> Self {
        self.columns.iter_mut().filter(|(name, _)| *name == column).for_each(|(_, align)| *align = Align::Right);
        self
    }

    /// One row: as many cells as there are columns.
    pub fn row(&mut self, cells: Vec<Piece>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }
}

/// How much of a long answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As much as a screen holds.
    Screen,
    /// All of it.
    All,
}

impl Extent {
    /// From `--all`.
    pub fn of(all: bool) -> Self {
        if all { Self::All } else { Self::Screen }
    }

    /// Rows of one table.
    pub fn rows(self) -> usize {
        match self {
            Self::Screen => 20,
            Self::All => usize::MAX,
        }
    }
}

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct Text(Vec<Vec<Piece>>);

impl Text {
    /// One line of several pieces.
    pub fn line(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        self.0.push(pieces.into_iter().collect());
    }

    /// One line of one piece.
    pub fn say(&mut self, piece: impl Into<Piece>) {
        self.line([piece.into()]);
    }

    /// A head with an empty line above it.
    pub fn head(&mut self, words: impl Into<String>) {
        if !self.0.is_empty() {
            self.line([]);
        }
        self.say(Piece::new(words, Tone::Head));
    }

    /// Names and what is known of each, one a line.
    pub fn facts(&mut self, facts: Vec<(&'static str, String)>) {
        let widest = facts.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
        for (name, value) in facts {
            let name = format!("  {name}{}  ", " ".repeat(widest.saturating_sub(name.width())));
            self.line([Piece::new(name, Tone::Faint), value.into()]);
        }
    }

    /// As many rows of a table as are shown, and how many are not.
    pub fn table(&mut self, mut table: Table, extent: Extent) {
        let left_out = table.rows.len().saturating_sub(extent.rows());
        table.rows.truncate(extent.rows());
        let last = table.columns.len().saturating_sub(1);
        if extent == Extent::Screen {
            for row in &mut table.rows {
                row.iter_mut().for_each(|cell| cell.cut(CELL));
            }
        }
        let heads: Vec<Piece> = table.columns.iter().map(|(name, _)| Piece::new(*name, Tone::Faint)).collect();
        let widest = |column: usize| table.rows.iter().filter_map(|row| row.get(column)).map(Piece::width).max();
        let widths: Vec<usize> = (0..=last).map(|column| widest(column).unwrap_or(0)).collect();
        for row in std::iter::once(&heads).chain(&table.rows) {
            let mut pieces = Vec::new();
            let mut gap = 0;
            for (column, cell) in row.iter().enumerate().filter(|(column, _)| widths[*column] > 0) {
                let head = heads.get(column).map_or(0, Piece::width);
                let missing = widths[column].max(head).saturating_sub(cell.width());
                let right = table.columns.get(column).is_some_and(|(_, align)| *align == Align::Right);
                let before = gap + if right { missing } else { 0 };
                // Nothing but what is needed stands behind the last word of a line.
                if cell.width() > 0 {
                    pieces.push(Piece::from(" ".repeat(before)));
                    pieces.push(cell.clone());
                    gap = 2 + if right { 0 } else { missing };
                } else {
                    gap = before + 2 + if right { 0 } else { missing };
                }
            }
            self.0.push(pieces);
        }
        if left_out > 0 {
            self.say(Piece::new(format!("… and {left_out} more; --all shows them"), Tone::Faint));
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            for piece in line {
                write!(f, "{piece}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Text {
    /// Each line as its words, without colours.
    pub fn words(&self) -> Vec<String> {
        self.plain().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// As it is printed where there are no colours.
    pub fn plain(&self) -> String {
        anstream::adapter::strip_str(&self.to_string()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(table: Table, extent: Extent) -> String {
        let mut text = Text::default();
        text.table(table, extent);
        text.plain()
    }

    #[test]
    fn columns_stand_under_each_other_whatever_their_letters_are_wide() {
        let mut table = Table::new(&["NAME", "EMPTY", "LAG", "SAYS"]).right("LAG");
        table.row(vec!["a".into(), "".into(), "5s".into(), "well".into()]);
        table.row(vec!["名前".into(), "".into(), "".into(), "".into()]);
        table.row(vec!["metrics-0".into(), "".into(), "120s".into(), "late".into()]);
        let expected = "NAME        LAG  SAYS\na            5s  well\n名前\nmetrics-0  120s  late\n";
        assert_eq!(shown(table, Extent::Screen), expected);
    }

    #[test]
    fn a_long_table_is_cut_and_says_so() {
        let table = || {
            let mut table = Table::new(&["N"]);
            (0..50).for_each(|n| table.row(vec![Piece::from(n.to_string())]));
            table
        };
        let short = shown(table(), Extent::Screen);
        assert_eq!(short.lines().count(), 22, "{short}");
        assert_eq!(short.lines().last(), Some("… and 30 more; --all shows them"));
        assert_eq!(shown(table(), Extent::All).lines().count(), 51);
    }

    #[test]
    fn a_long_word_is_cut_on_a_screen_and_whole_else() {
        let table = || {
            let mut table = Table::new(&["SAYS"]);
            table.row(vec!["x".repeat(200).into()]);
            table
        };
        assert!(shown(table(), Extent::Screen).lines().all(|line| line.width() <= CELL));
        assert!(shown(table(), Extent::All).contains(&"x".repeat(200)));
        for (text, width, expected) in [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("名前名", 4, "名…"), ("", 0, "")]
        {
            assert_eq!(cut(text, width), expected, "{text}");
        }
    }

    #[test]
    fn what_an_object_says_does_not_steer_the_terminal() {
        let mut text = Text::default();
        text.say("a\u{1b}[2Jb\r\nc");
        assert_eq!(text.plain(), "a [2Jb  c\n");
    }

    #[test]
    fn only_what_has_a_tone_has_a_colour() {
        assert_eq!(Piece::from("x").to_string(), "x");
        let bad = Piece::new("x", Tone::Bad).to_string();
        assert!(bad.starts_with('\u{1b}') && bad.ends_with("\u{1b}[0m"), "{bad:?}");
    }
}
