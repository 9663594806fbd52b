//! [`Oids`]: identifiers of schemas and tables.
//!
//! Postgres keeps them on disk; here they are given out as names are first seen, and stay for as long as the
//! process runs. A metric that goes away keeps its identifier, so that one that tools have noted never comes to mean
//! something else.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::{INFORMATION_SCHEMA, PG_CATALOG};

/// The first that Postgres gives to what is not its own.
const FIRST: i32 = 16_384;

/// What tools know by number: they compare `classoid` and the like with these.
const WELL_KNOWN: [(&str, i32); 11] = [
    ("pg_type", 1247),
    ("pg_attribute", 1249),
    ("pg_proc", 1255),
    ("pg_class", 1259),
    ("pg_authid", 1260),
    ("pg_database", 1262),
    ("pg_constraint", 2606),
    ("pg_description", 2609),
    ("pg_namespace", 2615),
    ("pg_trigger", 2620),
    ("pg_extension", 3079),
];

/// A schema, or a table in one.
type Name = (String, Option<String>);

/// The identifiers given out so far.
#[derive(Debug, Default)]
pub(crate) struct Oids(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    oids: HashMap<Name, i32>,
    /// By identifier, from [`FIRST`].
    names: Vec<Name>,
}

impl Oids {
    /// The identifier of a schema.
    pub(super) fn of_schema(&self, schema: &str) -> i32 {
        match schema {
            PG_CATALOG => 11,
            INFORMATION_SCHEMA => 13_000,
            _ => self.of((schema.to_owned(), None)),
        }
    }

    /// The identifier of a table.
    pub(super) fn of_table(&self, schema: &str, table: &str) -> i32 {
        let well_known = WELL_KNOWN.iter().find(|(name, _)| schema == PG_CATALOG && *name == table);
        well_known.map_or_else(|| self.of((schema.to_owned(), Some(table.to_owned()))), |(_, oid)| *oid)
    }

    fn of(&self, name: Name) -> i32 {
        let mut known = self.0.lock();
        if let Some(oid) = known.oids.get(&name) {
            return *oid;
        }
        let oid = i32::try_from(known.names.len()).map_or(i32::MAX, |n| n.saturating_add(FIRST));
        known.names.push(name.clone());
        known.oids.insert(name, oid);
        oid
    }

    /// Schema and name of the table with this identifier.
    pub(super) fn table(&self, oid: i32) -> Option<(String, String)> {
        if let Some((name, _)) = WELL_KNOWN.iter().find(|(_, known)| *known == oid) {
            return Some((PG_CATALOG.to_owned(), (*name).to_owned()));
        }
        let known = self.0.lock();
        let (schema, table) = known.names.get(usize::try_from(oid.checked_sub(FIRST)?).ok()?)?;
        table.clone().map(|table| (schema.clone(), table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_stay_and_lead_back_to_names() {
        let oids = Oids::default();
        let (metrics, up) = (oids.of_schema("metrics"), oids.of_table("metrics", "up"));
        assert_ne!(metrics, up);
        assert_eq!(oids.of_table("metrics", "up"), up);
        assert_ne!(oids.of_table("tsdb", "up"), up);
        assert_eq!(oids.table(up), Some(("metrics".to_owned(), "up".to_owned())));
        assert_eq!(oids.table(metrics), None);
        assert_eq!(oids.table(1259), Some(("pg_catalog".to_owned(), "pg_class".to_owned())));
        assert_eq!(oids.table(i32::MIN), None);
    }
}
