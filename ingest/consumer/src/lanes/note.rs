//! What the row of a partition says beside the offset, and what follows from it for the lane. Pure.

use understudy_kafka::Origin;

use super::{Fault, Lane};

/// What a row says beside the offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The topic that was read.
    pub origin: Origin,
    /// The schema that what is stored is in; None where that is not known.
    pub schema: Option<String>,
    /// Where the topic ended when it was seen to end below the offset.
    pub cut: Option<i64>,
    /// The offset that nobody passes who reads the partition into the shard, because another one is fed from there on.
    pub until: Option<i64>,
}

impl Lane {
    /// Takes notice of which topic the log is. Whether what is stored turns out to be of another one.
    pub(super) fn belongs_to(&mut self, found: &Origin) -> bool {
        let same = self.stored.is_none() || self.origin.agrees(found);
        match (same, &self.fault) {
            (_, Some(Fault::Schema { .. })) => {}
            (true, Some(Fault::Replaced { .. })) => self.fault = self.ended(),
            (true, _) | (false, Some(Fault::Replaced { .. })) => {}
            (false, _) => {
                self.fail(Fault::Replaced { stored: self.origin.clone(), found: found.clone() });
                return true;
            }
        }
        false
    }

    /// Takes notice of which schema is written: of what is in another one the offset says nothing here.
    pub(super) fn is_in(&mut self, written: Option<&str>) {
        let stored = self.schema.as_deref().filter(|_| self.stored.is_some());
        let differ = stored.zip(written).filter(|(stored, written)| stored != written);
        let fault =
            differ.map(|(stored, written)| Fault::Schema { stored: stored.to_owned(), written: written.to_owned() });
        if let Some(fault) = fault {
            self.fail(fault);
        }
    }

    /// What its row said, or what another lane of the partition knew.
    pub(super) fn recall(&mut self, cut: Option<i64>, row_cut: Option<i64>) {
        (self.cut, self.row_cut) = (cut, row_cut);
        let ended = self.ended();
        if ended.is_none() {
            // What is stored here ends where the log is as it was.
            self.cut = None;
        }
        if ended.is_some() || matches!(self.fault, Some(Fault::Ended { .. })) {
            (self.fault, self.trying) = (ended, false);
        }
    }

    /// What the row is to say beside the offset. Of what keeps the lane from going on it must not forget anything.
    pub(super) fn note(&self, found: &Origin, written: Option<&str>) -> Note {
        let origin = match self.fault {
            Some(Fault::Replaced { .. } | Fault::Schema { .. }) => self.origin.clone(),
            _ => found.or(&self.origin),
        };
        let schema = match self.fault {
            Some(Fault::Schema { .. }) => self.schema.clone(),
            _ => written.map(str::to_owned).or_else(|| self.schema.clone()),
        };
        Note { origin, schema, cut: self.cut, until: self.promise() }
    }

    /// The row says this now.
    pub(super) fn noted(&mut self, note: Note) {
        (self.origin, self.schema, self.row_cut, self.row_until) = (note.origin, note.schema, note.cut, note.until);
    }
}
