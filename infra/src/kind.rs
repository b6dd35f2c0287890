//! What a resource kind is: one file per kind, all of this shape. A kind says what we want (`Spec`), reads the same `Spec`
//! back from AWS (`observe`), and knows how to create, update, delete and list. It decides nothing: what to do follows
//! from the pure comparison in [`crate::plan`], and when to do it from [`crate::engine`].

use std::fmt::{self, Debug};

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cloud::Cloud;
use crate::error::KindError;

/// Where a resource lives and what it is called in the blueprint.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// AWS clients.
    pub cloud: &'a Cloud,
    /// The region whose endpoint is called. Global services use the home region.
    pub region: &'a str,
    /// The resource's key in the blueprint, `vpc.primary` for example: the value of its `understudy:resource` tag.
    pub key: &'a str,
    /// The stack's suffix: the value of the `understudy:stack` tag.
    pub suffix: &'a str,
    /// The account.
    pub account: &'a str,
    /// Tags that the operator adds to Understudy's own.
    pub extra_tags: &'a [(String, String)],
}

/// The tag that says which stack a resource belongs to.
pub const STACK_TAG: &str = "understudy:stack";
/// The tag that says which node of the blueprint a resource is.
pub const RESOURCE_TAG: &str = "understudy:resource";

/// The tags of everything that takes tags, set when it is created. An operator's tag replaces ours of the same name, but
/// not the two that say whose a resource is.
pub fn tags(site: &Site<'_>) -> Vec<(String, String)> {
    let ours = [
        ("Environment", "DR"),
        ("CostCenter", "Operations"),
        ("Criticality", "High"),
    ];
    let mut all: Vec<(String, String)> = ours
        .into_iter()
        .filter(|(key, _)| !site.extra_tags.iter().any(|(extra, _)| extra == key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    all.extend(
        site.extra_tags
            .iter()
            .filter(|(key, _)| key != STACK_TAG && key != RESOURCE_TAG)
            .cloned(),
    );
    all.push((STACK_TAG.to_owned(), site.suffix.to_owned()));
    all.push((RESOURCE_TAG.to_owned(), site.key.to_owned()));
    all
}

impl Site<'_> {
    /// An SDK error with this site's region: `.map_err(|e| site.fail("CreateVpc", &name, e))?`.
    pub fn fail<E>(
        &self,
        operation: &'static str,
        subject: &str,
        error: SdkError<E, HttpResponse>,
    ) -> KindError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        KindError::from_sdk(operation, subject, self.region, error)
    }

    /// A refusal that is no error answer: part of an answer that succeeded otherwise, or the kind's own.
    pub fn refuse(
        &self,
        operation: &'static str,
        subject: &str,
        code: Option<&str>,
        message: impl Into<String>,
    ) -> KindError {
        KindError::refused(operation, subject, self.region, code, message)
    }

    /// The refusal to delete what is protected from it. Deletion protection is the operator's word, and only the operator
    /// takes it back.
    pub fn protected(&self, operation: &'static str, subject: &str) -> KindError {
        let message = "it is protected from deletion: set `deletion_protection = false` in stack.toml and run `understudy up` \
                       first";
        self.refuse(operation, subject, Some("InvalidDeletionProtected"), message)
    }

    /// Something that the listing found here.
    pub fn found<K: Kind>(&self, id: impl Into<String>, key: Option<String>) -> Found {
        Found {
            kind: K::NAME.to_owned(),
            region: self.region.to_owned(),
            id: id.into(),
            key,
            held_back: None,
        }
    }
}

/// Where a kind's resources live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Each region has its own.
    Regional,
    /// One name space for the account (IAM, Route 53, Aurora global clusters): listed in the home region only.
    Global,
}

/// A resource as AWS has it now.
#[derive(Debug, Clone, PartialEq)]
pub struct Live<S, O> {
    /// The same fields that we ask for, as AWS reports them.
    pub spec: S,
    /// Physical ids and addresses that other resources refer to.
    pub outputs: O,
    /// `None` when the resource can be used and changed; otherwise what AWS is still doing, in words for a person.
    pub settling: Option<String>,
}

/// One kind of AWS resource.
///
/// Every call is idempotent: creating what exists, deleting what is gone and updating to what already is are all successes.
/// A kind neither waits nor retries: the engine observes again until the resource is settled and equal to the `Spec`, and
/// tries again what [`crate::error::Class`] says may pass. So `create` may leave to `update` what needs a second call.
/// What cannot be read back (a field that AWS does not report) is copied from `spec` in `observe`.
pub trait Kind: Send + Sync + 'static {
    /// The kind's name in plans, progress and errors: `vpc`, `iam-role`.
    const NAME: &'static str;
    /// Whether each region has its own.
    const SCOPE: Scope = Scope::Regional;
    /// It holds data: never replaced without an explicit flag.
    const STATEFUL: bool = false;
    /// Fields of `Spec` that AWS cannot change in place: a difference means replacement.
    const IMMUTABLE: &'static [&'static str] = &[];
    /// Fields whose live value is a role that moves (which cluster is the writer): reported, never repaired.
    const ROLES: &'static [&'static str] = &[];
    /// How ARNs of this kind begin, as `service:resource`, region and account left out: `ec2:vpc/`. [`Kind::list`] finds all of
    /// these that exist and carry the stack's tag. So one that the tagging API still shows and the listing does not is gone.
    const ARNS: &'static [&'static str] = &[];

    /// What we want. Secrets never appear in it.
    type Spec: Serialize + Clone + PartialEq + Debug + Send + Sync;
    /// What others refer to.
    type Outputs: Serialize + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync;

    /// Reads the resource back. `None` when it does not exist (or is on its way out and gone for our purposes).
    fn observe(
        site: &Site<'_>,
        spec: &Self::Spec,
    ) -> impl Future<Output = Result<Option<Live<Self::Spec, Self::Outputs>>, KindError>> + Send;

    /// Creates it, tagged. The engine observes afterwards, so nothing is returned.
    fn create(site: &Site<'_>, spec: &Self::Spec) -> impl Future<Output = Result<(), KindError>> + Send;

    /// Brings the live resource to `spec`. Called only with differences outside `IMMUTABLE` and `ROLES`.
    fn update(
        site: &Site<'_>,
        spec: &Self::Spec,
        live: &Live<Self::Spec, Self::Outputs>,
    ) -> impl Future<Output = Result<(), KindError>> + Send;

    /// Starts deletion. The engine observes until it is gone.
    fn delete(
        site: &Site<'_>,
        live: &Live<Self::Spec, Self::Outputs>,
    ) -> impl Future<Output = Result<(), KindError>> + Send;

    /// Starts deletion of what [`Kind::list`] found under this id and no blueprint knows: how strangers are pruned.
    ///
    /// # Errors
    /// The call that failed.
    fn discard(site: &Site<'_>, id: &str) -> impl Future<Output = Result<(), KindError>> + Send {
        let refusal = KindError::unsupported(Self::NAME, id, site.region);
        async { Err(refusal) }
    }

    /// Everything of this kind in the site's region that belongs to the stack, by tag or by deterministic name.
    /// Used by the inventory; `site.key` is empty here.
    fn list(site: &Site<'_>) -> impl Future<Output = Result<Vec<Found>, KindError>> + Send;
}

/// The listing of one kind, for the inventory.
pub struct Lister {
    name: &'static str,
    scope: Scope,
    stateful: bool,
    arns: &'static [&'static str],
    list: for<'a> fn(&'a Site<'a>) -> BoxFuture<'a, Result<Vec<Found>, KindError>>,
    discard: for<'a> fn(&'a Site<'a>, &'a str) -> BoxFuture<'a, Result<(), KindError>>,
}

impl Debug for Lister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Lister {
    /// Of a kind.
    pub fn of<K: Kind>() -> Self {
        Lister {
            name: K::NAME,
            scope: K::SCOPE,
            stateful: K::STATEFUL,
            arns: K::ARNS,
            list: |site| Box::pin(K::list(site)),
            discard: |site, id| Box::pin(K::discard(site, id)),
        }
    }

    /// The kind's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How ARNs of this kind begin: see [`Kind::ARNS`].
    pub fn arns(&self) -> &'static [&'static str] {
        self.arns
    }

    /// Whether the kind holds data.
    pub fn is_stateful(&self) -> bool {
        self.stateful
    }

    /// Where it must be asked.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Asks.
    ///
    /// # Errors
    /// The call that failed.
    pub async fn list(&self, site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        (self.list)(site).await
    }

    /// Starts deletion of something that [`Lister::list`] found.
    ///
    /// # Errors
    /// The call that failed.
    pub async fn discard(&self, site: &Site<'_>, id: &str) -> Result<(), KindError> {
        (self.discard)(site, id).await
    }
}

/// Something of ours that a listing found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Found {
    /// The kind's name.
    pub kind: String,
    /// The region it was found in.
    pub region: String,
    /// The name or id that AWS knows it by.
    pub id: String,
    /// Its `understudy:resource` tag, where the kind carries tags.
    pub key: Option<String>,
    /// Its deletion has begun, and this says when AWS finishes it. It does not count as left over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
}
