-- What a replay recovered is looked at before the region opens, however long the log is. Few entries are in it.
create index entries_recovered on ledger.entries (posted_epoch) where posted_epoch <> epoch;
