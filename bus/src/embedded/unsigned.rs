use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Error, Result, ToSql};

/// An unsigned number in a column, whose numbers are signed. rusqlite converts `u64` itself up to version 0.37, and from 0.38 on
/// only with a feature that older versions do not have; this works with all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsigned(pub(super) u64);

impl ToSql for Unsigned {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        let number = i64::try_from(self.0).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(ToSqlOutput::from(number))
    }
}

impl FromSql for Unsigned {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = i64::column_result(value)?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_number_comes_back_and_what_does_not_fit_is_an_error() {
        let sql = Connection::open_in_memory().unwrap();
        let back = |number: &dyn ToSql| sql.query_row("SELECT ?1", [number], |row| row.get::<_, Unsigned>(0));
        for number in [0, 1, 1 << 40, i64::MAX as u64] {
            assert_eq!(back(&Unsigned(number)).unwrap(), Unsigned(number));
        }
        assert!(back(&Unsigned(1 << 63)).is_err());
        assert!(back(&-1).is_err());
    }
}
