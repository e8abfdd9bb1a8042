//! Prints the result of one finished run:
//! `cargo run -p invaspread-record --example read_run runs/table1/0123abcd-s0`.

use invaspread_record::{Layout, MetricsTable, RecordError, RunRecord};

fn main() -> Result<(), RecordError> {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: read_run FOLDER, the folder of a finished run");
        std::process::exit(2);
    };
    let layout = Layout::of(std::path::PathBuf::from(folder));
    let record = RunRecord::read(&layout)?;
    println!("{} on {}, seed {}, {} epochs", record.row, record.dataset, record.seed, record.epochs);
    let table = MetricsTable::read(&layout.metrics())?;
    for (name, value) in &record.metrics {
        println!("{name}: last {:.2}, best {:.2} at epoch {}", value.last, value.best, value.best_epoch);
        for (epoch, value) in table.series("test", name) {
            println!("  epoch {epoch:>3}: {value:.2}");
        }
    }
    Ok(())
}
