//! `invaspread demo`: three methods on generated images, then a table, curves and a picture of retrieved
//! neighbors.

use super::launch::{announce, each_once, note_request, work};
use super::places::Places;
use super::report::{Pages, Print, draw, write};
use crate::arguments::DemoArguments;
use crate::failure::Failure;
use crate::output::{note, print_line};
use anyhow::anyhow;
use invaspread_runner::config::{Launcher, Suite, Sweep};
use invaspread_runner::memory::Memory;

pub(crate) fn demo(arguments: &DemoArguments) -> Result<(), Failure> {
    let suite = Suite::open("demo")?;
    let mut sweep = suite.plan_all(&arguments.settings.overrides()?, &Memory::of)?;
    let request = [vec!["reproduce".into(), "demo".into()], arguments.settings.arguments()].concat();
    note_request(&mut sweep.planned, &request);
    let Sweep { planned, root, launcher, .. } = each_once(sweep);
    if launcher != Launcher::Here {
        let error = anyhow!(
            "`launcher`: demo runs in this process, expected launcher=here; `reproduce demo` takes any launcher"
        );
        return Err(Failure::Usage(error));
    }
    note!("{}", suite.title);
    announce(&planned, &root, &Places::default())?;
    work(&planned, &root, &Places::default(), &[])?;
    let out = root.join("demo-report");
    draw(&suite, &planned, &root, &out)?;
    write(&suite, &root, &out, Pages::Renewed, Print::Text)?;
    print_line!("open {} for the table, and the pictures beside it", out.join("report.md").display());
    Ok(())
}
