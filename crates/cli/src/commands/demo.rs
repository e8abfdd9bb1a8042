//! `invaspread demo`: three methods on generated images, then a table, curves and a picture of retrieved
//! neighbors.

use super::launch::{announce, each_once, work};
use super::report::{Pages, Print, draw, write};
use crate::arguments::DemoArguments;
use crate::failure::Failure;
use crate::output::{note, print_line};
use invaspread_runner::config::{Suite, Sweep};
use invaspread_runner::memory::Memory;

pub(crate) fn demo(arguments: &DemoArguments) -> Result<(), Failure> {
    let suite = Suite::open("demo")?;
    let sweep = suite.plan_all(&arguments.settings.overrides()?, &Memory::of)?;
    let Sweep { planned, root, .. } = each_once(sweep);
    note!("{}", suite.title);
    announce(&planned, &root, 1)?;
    work(&planned, &root, &[], &[])?;
    let out = root.join("demo-report");
    draw(&suite, &planned, &root, &out)?;
    write(&suite, &root, &out, Pages::Renewed, Print::Text)?;
    print_line!("open {} for the table, and the pictures beside it", out.join("report.md").display());
    Ok(())
}
