//! Tables, figures and galleries, made from run records alone.
//!
//! The parts of this crate, in the order in which data flows: [`records::load`] reads finished runs.
//! [`Table`] turns them into means and deviations beside the numbers of the [`paper`]. [`Table::sections`]
//! makes one [`Section`] for each setting (profile, device, data set), from which every output is made:
//! [`curves`], [`bars`] and [`separation`] draw it, and [`terminal_table`] prints it. [`write_report`] writes
//! all outputs into one folder, [`write_report_with_page`] also a page that needs nothing beside it, and [`index`] puts all
//! suites on one page. [`gallery`] draws retrieved
//! neighbors from pixels and needs no run record.
//!
//! Three rules hold everywhere: a number that no run produced cannot reach a table; the paper's numbers are
//! always labeled as the paper's; and the same records always give the same bytes, on every machine.

pub mod bars;
pub mod curves;
pub mod evaluation;
pub mod gallery;
pub mod index;
pub mod look;
pub mod paper;
pub mod peers;
pub mod records;
pub mod separation;

mod aggregate;
mod beside;
mod canvas;
mod caption;
mod color;
mod error;
mod figure;
mod html;
mod latex;
mod long_form;
mod markdown;
mod names;
mod order;
mod page_file;
mod palette;
mod quote;
mod rows;
mod section;
mod seeds;
mod setting;
mod suite;
mod table;
mod terminal;
mod thresholds;
mod write;

pub use aggregate::Line;
pub use beside::Beside;
pub use error::ReportError;
pub use figure::Figure;
pub use names::{dataset_label, row_label};
pub use page_file::is_foreign_page;
pub use records::Run;
pub use section::Section;
pub use setting::Setting;
pub use suite::Suite;
pub use table::Table;
pub use terminal::terminal_table;
pub use write::{PAGE, Written, is_of_full_runs, write_report, write_report_with_page};

#[cfg(test)]
mod fake;
