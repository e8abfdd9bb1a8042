//! A table in long form, one number in each row, as CSV and Parquet.

use polars::prelude::*;

use crate::aggregate::Line;
use crate::error::ReportError;
use crate::setting::Setting;
use crate::table::Table;

impl Table {
    /// Returns the long form: columns `row,metric,n,mean,std,best_mean,paper,difference,profile,device,data`.
    ///
    /// # Errors
    /// Returns the errors of polars.
    pub fn frame(&self) -> Result<DataFrame, ReportError> {
        let texts = |of: fn(&Line, &Setting) -> String| -> Vec<String> {
            self.lines.iter().map(|line| of(line, &self.settings[line.setting])).collect()
        };
        let numbers =
            |of: fn(&Line) -> Option<f64>| -> Vec<Option<f64>> { self.lines.iter().map(of).collect() };
        df!(
            "row" => texts(|line, _| line.row.clone()),
            "metric" => texts(|line, _| line.metric.clone()),
            "n" => self.lines.iter().map(|line| line.n as i64).collect::<Vec<_>>(),
            "mean" => numbers(|line| line.mean),
            "std" => numbers(|line| line.std),
            "best_mean" => numbers(|line| line.best_mean),
            "paper" => numbers(|line| line.paper),
            "difference" => numbers(|line| line.difference),
            "profile" => texts(|_, setting| setting.profile.clone()),
            "device" => texts(|_, setting| match &setting.precision {
                Some(precision) => format!("{}; {precision}", setting.device),
                None => setting.device.clone(),
            }),
            "data" => texts(|_, setting| {
                format!("{}{}", setting.data_state, if setting.held_out { "; held-out" } else { "" })
            }),
        )
        .map_err(|source| self.failed(source))
    }

    /// Returns [`Table::frame`] as CSV. The field of a number that does not exist is empty.
    ///
    /// # Errors
    /// Returns the errors of polars.
    pub fn csv(&self) -> Result<Vec<u8>, ReportError> {
        let mut bytes = Vec::new();
        CsvWriter::new(&mut bytes).finish(&mut self.frame()?).map_err(|source| self.failed(source))?;
        Ok(bytes)
    }

    /// Returns [`Table::frame`] as Parquet.
    ///
    /// # Errors
    /// Returns the errors of polars.
    pub fn parquet(&self) -> Result<Vec<u8>, ReportError> {
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes)
            .with_compression(ParquetCompression::Snappy)
            .finish(&mut self.frame()?)
            .map_err(|source| self.failed(source))?;
        Ok(bytes)
    }

    fn failed(&self, source: PolarsError) -> ReportError {
        ReportError::Table { suite: self.suite.name.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;

    #[test]
    fn csv_has_the_agreed_columns_and_parquet_the_same_values() {
        let table = Table::new("table1", &fake::quick_runs(&[0, 1])).unwrap();
        let csv = String::from_utf8(table.csv().unwrap()).unwrap();
        assert_eq!(
            csv.lines().next().unwrap(),
            "row,metric,n,mean,std,best_mean,paper,difference,profile,device,data"
        );
        insta::assert_snapshot!("table_csv", csv);
        let bytes = table.parquet().unwrap();
        let read = ParquetReader::new(std::io::Cursor::new(bytes)).finish().unwrap();
        assert!(read.equals_missing(&table.frame().unwrap()));
    }
}
