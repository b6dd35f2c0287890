//! One file per kind of AWS resource, all of one shape: `Spec`, `observe`, `create`, `update`, `delete`, `list`.

pub mod vpc;

mod ec2;
