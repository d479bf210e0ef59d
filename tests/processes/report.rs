//! What the tests against real providers found, for the table in the README.
//!
//! Each provider's test says what held when it has checked it; `ci/provider-table` puts the rows together.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The columns of the table, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    Login,
    SignalExtends,
    RefusedRefreshEnds,
    LogoutBySid,
    LogoutBySub,
    Rotation,
    IdleEndSeen,
    PrivateKeyJwt,
    Pushed,
    Dpop,
    MutualTls,
}

impl Column {
    const ALL: [Self; 11] = [
        Self::Login,
        Self::SignalExtends,
        Self::RefusedRefreshEnds,
        Self::LogoutBySid,
        Self::LogoutBySub,
        Self::Rotation,
        Self::IdleEndSeen,
        Self::PrivateKeyJwt,
        Self::Pushed,
        Self::Dpop,
        Self::MutualTls,
    ];
}

/// The row of one provider. It is written when it is dropped, unless the test fails.
pub(crate) struct Report {
    provider: &'static str,
    cells: BTreeMap<Column, &'static str>,
}

impl Report {
    pub(crate) fn of(provider: &'static str) -> Self {
        Self { provider, cells: BTreeMap::new() }
    }

    /// It was seen to hold, just now.
    pub(crate) fn holds(&mut self, column: Column) {
        self.cells.insert(column, "yes");
    }

    /// What was seen instead of a plain yes.
    pub(crate) fn is(&mut self, column: Column, found: &'static str) {
        self.cells.insert(column, found);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let cell = |column| self.cells.get(&column).copied().unwrap_or("–");
        let row = Column::ALL.map(cell).join(" | ");
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("providers");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(self.provider), format!("| {} | {row} |\n", self.provider)).unwrap();
    }
}
