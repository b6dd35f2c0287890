//! The commands before a stack exists: `init`, `build`, `doctor`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use infra::spec::Architecture;

use crate::artifacts::build::{self, Order};
use crate::failure::Failure;
use crate::stack::{Stack, StackOptions};
use crate::ui::Ui;
use crate::{doctor, init};

/// Writes a stack.toml with every setting explained.
///
/// The file holds every setting with its default, so the stack that it describes is the one without any file.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy init                                  writes stack.toml\n  understudy init --config prod.toml --suffix prod  a second stack's file"
)]
pub struct Init {
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = "stack.toml")]
    config: PathBuf,
    /// The stack's suffix, which ends every name.
    #[arg(long, value_name = "SUFFIX")]
    suffix: Option<String>,
    /// Replace the file if there is one.
    #[arg(long)]
    force: bool,
}

impl Init {
    /// Runs the command.
    pub fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let written = init::write(&self.config, self.suffix.as_deref(), self.force)?;
        let file = written.file.display();
        ui.result(
            &written,
            format!("wrote {file}; next: edit it, then `understudy build` and `understudy doctor`, or `understudy up --local`"),
        );
        Ok(())
    }
}

/// The processors of a Lambda function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Arch {
    /// Graviton: cheaper.
    #[value(name = "arm64")]
    Arm64,
    /// Intel and AMD.
    #[value(name = "x86-64")]
    X86_64,
}

/// Builds the functions' packages for Lambda.
///
/// Needs cargo-lambda (`pip install cargo-lambda`) and Rust's standard library for the chosen processor. The packages and a
/// manifest, packages.json, go into a folder where `understudy up` finds them. The same sources give the same packages.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy build\n  understudy build --arch x86-64 --function payment-processor"
)]
pub struct Build {
    /// The processors to build for.
    #[arg(long, value_enum, default_value_t = Arch::Arm64)]
    arch: Arch,
    /// Build only this function; repeat it for more.
    #[arg(long = "function", value_name = "NAME")]
    functions: Vec<String>,
    /// Where to put the packages; by default `lambda` in cargo's target folder, where `up` looks.
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
}

impl Build {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let order = Order {
            architecture: match self.arch {
                Arch::Arm64 => Architecture::Arm64,
                Arch::X86_64 => Architecture::X86_64,
            },
            functions: self.functions,
            folder: self.packages,
        };
        let built = build::build(&order, ui).await?;
        ui.result(&built, build::describe(&built));
        Ok(())
    }
}

/// Asks AWS whether the stack can be deployed, before anything is created.
///
/// Looks at credentials, clock, permissions, regions, zones, quotas, service-linked roles, the database engine, names, the
/// domain's delegation and the packages. Creates nothing. Exits with 1 if a check failed; what AWS does not say is `unknown`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy doctor\n  understudy doctor --policy > operator.json   the IAM policy that running `understudy` needs"
)]
pub struct Doctor {
    #[command(flatten)]
    stack: StackOptions,
    /// Print the IAM policy that an operator of this stack needs, as JSON, and check nothing.
    #[arg(long)]
    policy: bool,
}

impl Doctor {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let stack = Stack::open(&self.stack).await?;
        if self.policy {
            let policy = doctor::policy(&stack);
            ui.result(&policy, serde_json::to_string_pretty(&policy)?);
            return Ok(());
        }
        let diagnosis = doctor::examine(&stack).await;
        ui.result(&diagnosis, doctor::describe(&diagnosis));
        match diagnosis.failed {
            0 => Ok(()),
            1 => Err(Failure::text("one check failed").help("mend it and run `understudy doctor` again")),
            many => Err(Failure::text(format!("{many} checks failed"))
                .help("mend them and run `understudy doctor` again")),
        }
    }
}
