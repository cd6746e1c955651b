"""The one door to storage: settings, schemas, landing files, tables, staging and publishing."""
