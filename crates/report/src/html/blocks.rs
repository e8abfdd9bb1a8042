//! The text of a report as blocks of a page: headings, paragraphs, tables, lists, commands, pictures.
//!
//! A page is made from the text of `report.md`, so that neither can say what the other does not. Names of users are quoted
//! there ([`crate::quote`]); reading the text takes the quotes away, and the template escapes the names for HTML.

use askama::Template;
use pulldown_cmark::{Alignment, CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A piece of text in one style.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) strong: bool,
    pub(crate) emphasis: bool,
    pub(crate) code: bool,
    /// The file or the place on the page that it leads to.
    pub(crate) link: Option<String>,
}

/// Text of several styles.
#[derive(Debug, Clone, Default, PartialEq, Template)]
#[template(path = "spans.html")]
pub(crate) struct Spans(pub(crate) Vec<Span>);

impl askama::filters::HtmlSafe for Spans {}

impl Spans {
    /// Returns the text without its styles.
    pub(crate) fn plain(&self) -> String {
        self.0.iter().map(|span| span.text.as_str()).collect()
    }

    /// Returns the text if all of it is strong.
    fn strong(&self) -> Option<Self> {
        let is_strong = !self.0.is_empty() && self.0.iter().all(|span| span.strong);
        is_strong.then(|| Self(self.0.iter().map(|span| Span { strong: false, ..span.clone() }).collect()))
    }
}

/// A cell of a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cell {
    pub(crate) spans: Spans,
    /// The number by which the cell is sorted, as text; empty if it has none.
    pub(crate) key: String,
    /// Further links behind the text, each with its name.
    pub(crate) more: Vec<(String, String)>,
}

/// The head of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    pub(crate) spans: Spans,
    pub(crate) is_number: bool,
    /// Whether the column holds numbers of the paper.
    pub(crate) is_papers: bool,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table {
    /// What it shows, for its caption and for screen readers.
    pub(crate) title: String,
    /// Whether the title is shown above the table, and not a heading before it.
    pub(crate) has_caption: bool,
    pub(crate) heads: Vec<Head>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// A block of a page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    Heading {
        level: u8,
        spans: Spans,
    },
    Text(Spans),
    /// A remark that must not be overlooked.
    Note(Spans),
    List(Vec<Spans>),
    Table(Table),
    /// Names and what holds for each: a table without heads.
    Card(Vec<(Spans, Spans)>),
    Commands(String),
    /// A picture in a file beside the page, with what it shows.
    Picture {
        file: String,
        shows: String,
    },
}

/// Reads the text of a report.
pub(crate) fn read(markdown: &str) -> Vec<Block> {
    let mut reader = Reader::default();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        reader.take(event);
    }
    titled(reader.blocks)
}

/// Gives each table the strong line before it as a caption, or else the heading before it as a name.
fn titled(blocks: Vec<Block>) -> Vec<Block> {
    let mut done: Vec<Block> = Vec::with_capacity(blocks.len());
    let mut heading = String::new();
    for mut block in blocks {
        if let Block::Heading { spans, .. } = &block {
            heading = spans.plain();
        }
        if let Block::Table(table) = &mut block {
            let before = match done.last() {
                Some(Block::Text(spans)) => {
                    spans.0.first().filter(|first| first.strong).map(|_| spans.plain())
                }
                _ => None,
            };
            table.has_caption = before.is_some();
            table.title = before.unwrap_or_else(|| heading.clone());
            if table.has_caption {
                done.pop();
            }
        }
        done.push(block);
    }
    done
}

/// The blocks read so far, and the one that is being read.
#[derive(Default)]
struct Reader {
    blocks: Vec<Block>,
    spans: Spans,
    style: Span,
    is_note: bool,
    items: Option<Vec<Spans>>,
    heads: Vec<Spans>,
    aligned: Vec<Alignment>,
    row: Vec<Spans>,
    rows: Vec<Vec<Spans>>,
    code: Option<String>,
    picture: Option<String>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Code(text) => {
                let span = Span { text: text.into_string(), code: true, ..self.style.clone() };
                self.spans.0.push(span);
            }
            Event::SoftBreak | Event::HardBreak => self.text(&" ".into()),
            // There is no markup in a report but what Markdown has: this is text.
            Event::Text(text)
            | Event::Html(text)
            | Event::InlineHtml(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text) => self.text(&text),
            Event::Rule | Event::TaskListMarker(_) | Event::FootnoteReference(_) => {}
        }
    }

    fn text(&mut self, text: &CowStr<'_>) {
        if let Some(code) = &mut self.code {
            code.push_str(text);
            return;
        }
        match self.spans.0.last_mut() {
            Some(last) if (Span { text: String::new(), ..last.clone() }) == self.style => {
                last.text.push_str(text);
            }
            _ => self.spans.0.push(Span { text: text.to_string(), ..self.style.clone() }),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::BlockQuote(_) => self.is_note = true,
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.code = Some(String::new());
            }
            Tag::List(_) => self.items = Some(Vec::new()),
            Tag::Table(aligned) => self.aligned = aligned,
            Tag::Strong => self.style.strong = true,
            Tag::Emphasis => self.style.emphasis = true,
            Tag::Link { dest_url, .. } => self.style.link = Some(dest_url.into_string()),
            Tag::Image { dest_url, .. } => self.picture = Some(dest_url.into_string()),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let level = if level == HeadingLevel::H1 {
                    1
                } else if level == HeadingLevel::H2 {
                    2
                } else {
                    3
                };
                let spans = self.taken();
                self.blocks.push(Block::Heading { level, spans });
            }
            TagEnd::Paragraph if !self.spans.0.is_empty() && self.items.is_none() => {
                let spans = self.taken();
                self.blocks.push(if self.is_note { Block::Note(spans) } else { Block::Text(spans) });
            }
            TagEnd::BlockQuote(_) => self.is_note = false,
            TagEnd::CodeBlock => self.blocks.extend(self.code.take().map(Block::Commands)),
            TagEnd::Item => {
                let spans = self.taken();
                self.items.get_or_insert_default().push(spans);
            }
            TagEnd::List(_) => self.blocks.extend(self.items.take().map(Block::List)),
            TagEnd::TableCell => {
                let spans = self.taken();
                self.row.push(spans);
            }
            TagEnd::TableHead => self.heads = std::mem::take(&mut self.row),
            TagEnd::TableRow => self.rows.push(std::mem::take(&mut self.row)),
            TagEnd::Table => self.end_table(),
            TagEnd::Strong => self.style.strong = false,
            TagEnd::Emphasis => self.style.emphasis = false,
            TagEnd::Link => self.style.link = None,
            TagEnd::Image => {
                let shows = self.taken().plain();
                self.blocks.extend(self.picture.take().map(|file| Block::Picture { file, shows }));
            }
            _ => {}
        }
    }

    fn taken(&mut self) -> Spans {
        std::mem::take(&mut self.spans)
    }

    fn end_table(&mut self) {
        let heads = std::mem::take(&mut self.heads);
        let rows = std::mem::take(&mut self.rows);
        if heads.iter().all(|head| head.0.is_empty()) {
            let pairs = rows.into_iter().map(|mut row| {
                let value = row.pop().unwrap_or_default();
                (row.pop().unwrap_or_default(), value)
            });
            self.blocks.push(Block::Card(pairs.collect()));
            return;
        }
        let is_number = |place: usize| self.aligned.get(place) == Some(&Alignment::Right);
        let cell = |(place, spans): (usize, Spans)| {
            let key = if is_number(place) { sort_key(&spans.plain()) } else { None };
            Cell { spans, key: key.map_or_else(String::new, |key| key.to_string()), more: Vec::new() }
        };
        let rows = rows.into_iter().map(|row| row.into_iter().enumerate().map(cell).collect()).collect();
        let heads = heads.into_iter().enumerate().map(|(place, spans)| Head {
            is_number: is_number(place),
            is_papers: spans.plain().starts_with("Paper"),
            // Heads are strong by themselves.
            spans: spans.strong().unwrap_or(spans),
        });
        let heads = heads.collect();
        self.blocks.push(Block::Table(Table { heads, rows, ..Table::default() }));
    }
}

/// Returns the number by which a cell is sorted: a time in seconds ("3 h 09 min"), otherwise the first number ("30.6 (0)",
/// "49.6 ± 0.3", "1,052", "−4.2"); `None` if there is none.
fn sort_key(text: &str) -> Option<f64> {
    let text = text.replace('−', "-").replace(',', "");
    let mut words =
        text.split_whitespace().skip_while(|word| word.parse::<f64>().is_err() && !is_in_brackets(word));
    let first = words.next()?.trim_matches(['(', ')']).trim_start_matches('±').parse::<f64>().ok()?;
    let seconds = |value: f64, unit: Option<&str>| match unit {
        Some("h") => Some(value * 3600.0),
        Some("min") => Some(value * 60.0),
        Some("s") => Some(value),
        _ => None,
    };
    let Some(mut total) = seconds(first, words.next()) else { return Some(first) };
    while let Some(value) = words.next().and_then(|word| word.parse::<f64>().ok()) {
        total += seconds(value, words.next()).unwrap_or(0.0);
    }
    Some(total)
}

fn is_in_brackets(word: &str) -> bool {
    word.trim_matches(['(', ')', '±']).parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::quote;

    #[test]
    fn every_kind_of_block_is_read() {
        let text = "# T\n\n> **Reduced.** Smaller.\n\n- one\n- two\n\n| | |\n|---|---|\n| Runs | 4 |\n\n**kNN (%)**\n\n\
                    | Row | **Last** | Paper |\n|---|---:|---:|\n| a | **1.5** ± 0.2 | – |\n\n![Curves](c.png)\n\n[SVG](c.svg)\n\n\
                    ```sh\nrun a\n```\n";
        let blocks = read(text);
        let [
            Block::Heading { level: 1, .. },
            Block::Note(note),
            Block::List(items),
            Block::Card(card),
            Block::Table(table),
            rest @ ..,
        ] = &blocks[..]
        else {
            panic!("{blocks:?}")
        };
        assert_eq!(note.plain(), "Reduced. Smaller.");
        assert_eq!((items.len(), card[0].1.plain()), (2, "4".to_owned()));
        assert_eq!((table.title.as_str(), table.has_caption), ("kNN (%)", true));
        assert!(table.heads[2].is_papers && !table.heads[1].is_papers && !table.heads[0].is_number);
        assert_eq!(table.rows[0][1].key, "1.5");
        assert_eq!(table.rows[0][2].key, "");
        let [Block::Picture { file, shows }, Block::Text(link), Block::Commands(commands)] = rest else {
            panic!("{rest:?}")
        };
        assert_eq!((file.as_str(), shows.as_str(), commands.as_str()), ("c.png", "Curves", "run a\n"));
        assert_eq!(link.0[0].link.as_deref(), Some("c.svg"));
    }

    #[test]
    fn names_of_users_come_back_as_they_were() {
        for name in ["<script>alert(1)</script>", "a|b", "[x](y) `z` *w* \\", "<!-- --> <b a='c'>", "&lt;"] {
            let text = format!("| Row | V |\n|---|---:|\n| {} | 1 |\n", quote::markdown(name));
            let blocks = read(&text);
            let Block::Table(table) = &blocks[0] else { panic!("{blocks:?}") };
            // An entity that a user typed is read as in every Markdown: it is text all the same.
            let expected = if name == "&lt;" { "<" } else { name };
            assert_eq!(table.rows[0][0].spans.plain(), expected);
            assert_eq!(table.rows[0].len(), 2);
        }
    }

    #[test]
    fn cells_are_sorted_by_what_they_say() {
        for (text, key) in [
            ("30.6 (0)", Some(30.6)),
            ("49.6 ± 0.3", Some(49.6)),
            ("1,052", Some(1052.0)),
            ("−4.2", Some(-4.2)),
            ("+4.2", Some(4.2)),
            ("≤ 612", Some(612.0)),
            ("3 h 09 min", Some(11_340.0)),
            ("20 s", Some(20.0)),
            ("12.0 (1 thread)", Some(12.0)),
            ("–", None),
            ("not reached", None),
        ] {
            assert_eq!(sort_key(text), key, "{text}");
        }
    }
}
