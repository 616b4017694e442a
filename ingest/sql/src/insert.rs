//! Multi-row statements built by hand, because the driver's batch sends a statement per row. Pure.
//!
//! The number of rows of a statement is a power of two, so that a connection sees few distinct statements and its cache of prepared
//! ones serves nearly all.

use mysql_async::Value;

/// The most parameters a prepared statement may have.
const MAX_PARAMS: usize = 65_535;
/// What a value takes in a packet beyond its bytes: type, length, null bit.
const VALUE_BYTES: usize = 13;

/// How large statements may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most rows in a statement.
    pub rows: usize,
    /// The most bytes of parameters in a statement. A single row may have more, up to `packet`.
    pub bytes: usize,
    /// The server's `max_allowed_packet`, in bytes.
    pub packet: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 512, bytes: 4 << 20, packet: 16 << 20 }
    }
}

/// `INSERT INTO t (a, b) VALUES (?,?),(?,?) ON DUPLICATE KEY UPDATE ...`
#[derive(Clone, Copy, Debug)]
pub struct Insert<'a> {
    /// Up to and including `VALUES`.
    pub head: &'a str,
    /// Values per row.
    pub columns: usize,
    /// What follows the rows, such as `AS new ON DUPLICATE KEY UPDATE ...`; may be empty.
    pub tail: &'a str,
}

/// One statement with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// With `?` for each parameter.
    pub sql: String,
    /// As many as there are `?`.
    pub params: Vec<Value>,
}

/// A row that no statement can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Not as many values as columns.
    #[error("a row has {0} values, {1} are wanted")]
    Columns(usize, usize),
    /// Larger than a packet.
    #[error("a row has {0} bytes, a packet takes {1}")]
    TooLarge(usize, usize),
}

impl<'a> Insert<'a> {
    /// Splits the rows into statements, in order.
    pub fn statements(
        &self,
        rows: Vec<Vec<Value>>,
        limits: Limits,
    ) -> impl Iterator<Item = Result<Statement, RowError>> + use<'a> {
        let insert = *self;
        let mut rows = rows.into_iter().peekable();
        let most = limits.rows.min(MAX_PARAMS / self.columns.max(1)).max(1);
        // Rows that were taken for a statement but did not make up a power of two.
        let mut ready: Vec<Vec<Value>> = Vec::new();
        std::iter::from_fn(move || {
            let mut bytes: usize = ready.iter().map(|row| row_bytes(row)).sum();
            while ready.len() < most {
                let Some(row) = rows.peek() else { break };
                let size = row_bytes(row);
                if let Err(e) = insert.check(row, size, limits) {
                    // Nothing after a row that cannot be sent is sent either.
                    (ready, rows) = (Vec::new(), Vec::new().into_iter().peekable());
                    return Some(Err(e));
                }
                if !ready.is_empty() && bytes + size > limits.bytes {
                    break;
                }
                bytes += size;
                ready.extend(rows.next());
            }
            if ready.is_empty() {
                return None;
            }
            let power = 1 << ready.len().ilog2();
            let rest = ready.split_off(power);
            let taken = std::mem::replace(&mut ready, rest);
            Some(Ok(insert.statement(taken)))
        })
    }

    fn check(&self, row: &[Value], size: usize, limits: Limits) -> Result<(), RowError> {
        if row.len() != self.columns {
            return Err(RowError::Columns(row.len(), self.columns));
        }
        if size > limits.packet {
            return Err(RowError::TooLarge(size, limits.packet));
        }
        Ok(())
    }

    fn statement(&self, rows: Vec<Vec<Value>>) -> Statement {
        let row = format!("({})", vec!["?"; self.columns].join(","));
        let mut sql = String::with_capacity(self.head.len() + self.tail.len() + rows.len() * (row.len() + 1) + 2);
        sql.push_str(self.head);
        for index in 0..rows.len() {
            sql.push(if index == 0 { ' ' } else { ',' });
            sql.push_str(&row);
        }
        if !self.tail.is_empty() {
            sql.push(' ');
            sql.push_str(self.tail);
        }
        Statement { sql, params: rows.into_iter().flatten().collect() }
    }
}

fn row_bytes(row: &[Value]) -> usize {
    row.iter().map(|value| VALUE_BYTES + if let Value::Bytes(bytes) = value { bytes.len() } else { 0 }).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INSERT: Insert<'_> =
        Insert { head: "INSERT INTO t (a,b) VALUES", columns: 2, tail: "ON DUPLICATE KEY UPDATE a=a" };

    fn rows(count: usize, bytes: usize) -> Vec<Vec<Value>> {
        (0..count).map(|i| vec![Value::Int(i as i64), Value::Bytes(vec![0; bytes])]).collect()
    }

    fn sizes(count: usize, bytes: usize, limits: Limits) -> Vec<usize> {
        INSERT.statements(rows(count, bytes), limits).map(|s| s.unwrap().params.len() / 2).collect()
    }

    #[test]
    fn statements_have_powers_of_two_of_rows_within_the_limits() {
        let limits = Limits { rows: 8, bytes: 1000, packet: 5000 };
        for (case, count, bytes, expected) in [
            ("nothing", 0, 10, vec![]),
            ("one", 1, 10, vec![1]),
            ("seven", 7, 10, vec![4, 2, 1]),
            ("more than fit by number", 21, 10, vec![8, 8, 4, 1]),
            ("more than fit by bytes", 3, 600, vec![1, 1, 1]),
            ("one larger than a statement but not than a packet", 1, 3000, vec![1]),
        ] {
            assert_eq!(sizes(count, bytes, limits), expected, "{case}");
        }
    }

    #[test]
    fn the_text_is_one_statement() {
        let all: Vec<_> = INSERT.statements(rows(2, 1), Limits::default()).map(Result::unwrap).collect();
        assert_eq!(all[0].sql, "INSERT INTO t (a,b) VALUES (?,?),(?,?) ON DUPLICATE KEY UPDATE a=a");
    }

    #[test]
    fn a_row_that_cannot_be_sent_is_refused() {
        let limits = Limits { rows: 8, bytes: 100, packet: 200 };
        let large: Vec<_> = INSERT.statements(rows(1, 500), limits).collect();
        assert_eq!(large, [Err(RowError::TooLarge(526, 200))]);
        let short: Vec<_> = INSERT.statements(vec![vec![Value::Int(1)]], limits).collect();
        assert_eq!(short, [Err(RowError::Columns(1, 2))]);
    }

    proptest! {
        #[test]
        fn every_row_is_sent_once_and_in_order(lengths in prop::collection::vec(0_usize..300, 0..200)) {
            let limits = Limits { rows: 32, bytes: 1000, packet: 5000 };
            let rows: Vec<Vec<Value>> =
                lengths.iter().enumerate().map(|(i, &l)| vec![Value::Int(i as i64), Value::Bytes(vec![1; l])]).collect();
            let mut sent = Vec::new();
            for statement in INSERT.statements(rows.clone(), limits) {
                let statement = statement.unwrap();
                let count = statement.params.len() / 2;
                prop_assert!(count <= limits.rows && count.is_power_of_two());
                let bytes: usize = statement.params.chunks(2).map(row_bytes).sum();
                prop_assert!(count == 1 || bytes <= limits.bytes);
                sent.extend(statement.params.chunks(2).map(<[Value]>::to_vec));
            }
            prop_assert_eq!(sent, rows);
        }
    }
}
