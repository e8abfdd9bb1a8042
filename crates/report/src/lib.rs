//! Tables, figures and galleries, made from run records alone.
//!
//! The way through this crate: [`records::load`] reads what finished runs left behind; [`table::Table`] turns it into
//! means and deviations beside [`paper`]'s numbers; [`curves`], [`bars`] and [`separation`] draw them; [`write_report`] puts the whole
//! into one folder; [`index`] sets all suites on one page. [`gallery`] draws retrieved neighbours and needs no run record.
//!
//! Three rules hold everywhere: a number that no run produced cannot reach a table; the paper's numbers are always
//! labelled as the paper's; and the same records give the same bytes, on any machine, at any time.

pub mod bars;
pub mod curves;
pub mod error;
pub mod gallery;
pub mod index;
pub mod paper;
pub mod records;
pub mod separation;
pub mod table;

mod canvas;
mod caption;
mod latex;
mod markdown;
mod names;
mod order;
mod palette;
mod quote;
mod terminal;
mod write;

pub use error::ReportError;
pub use names::{dataset_label, row_label};
pub use records::{Run, RunRecord};
pub use table::{Suite, Table};
pub use terminal::terminal_table;
pub use write::{Written, write_report};

#[cfg(test)]
mod fake;
