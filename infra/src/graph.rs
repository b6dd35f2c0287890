//! The graph of a stack: nodes of any kind with typed references between them. A node's `Spec` is a function of the
//! outputs of the nodes it refers to, so nothing can be referred to that was not declared before.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use continuity::names::Slot;
use serde::Serialize;
use serde_json::Value;

use crate::error::KindError;
use crate::kind::{Kind, Live, Site};
use crate::placeholder;
use crate::plan::{self, Planned};

/// A group of nodes in progress reports: a slot, or the global services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The home region.
    Primary,
    /// The region that takes over.
    Dr,
    /// The observer's region.
    Witness,
    /// Services without a region, and what spans regions.
    Global,
}

impl From<Slot> for Group {
    fn from(slot: Slot) -> Self {
        match slot {
            Slot::Primary => Group::Primary,
            Slot::Dr => Group::Dr,
            Slot::Witness => Group::Witness,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Group::Primary => "primary",
            Group::Dr => "dr",
            Group::Witness => "witness",
            Group::Global => "global",
        })
    }
}

/// Where a node lives: the region that is called and the group it is counted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The group.
    pub group: Group,
    /// The region.
    pub region: String,
}

/// A typed reference to a node.
#[derive(Debug)]
pub struct Handle<K> {
    key: Arc<str>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Handle<K> {
    fn clone(&self) -> Self {
        Handle {
            key: Arc::clone(&self.key),
            kind: PhantomData,
        }
    }
}

impl<K> Handle<K> {
    /// The node's key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// The outputs of the nodes that exist so far.
#[derive(Debug, Default)]
pub(crate) struct Resolved(RwLock<HashMap<String, Arc<dyn Any + Send + Sync>>>);

impl Resolved {
    pub(crate) fn insert(&self, key: &str, outputs: Arc<dyn Any + Send + Sync>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.to_owned(), outputs);
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(key)
    }

    fn get<K: Kind>(&self, handle: &Handle<K>) -> Result<K::Outputs, Unresolved> {
        let outputs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        outputs
            .get(handle.key())
            .and_then(|any| any.downcast_ref::<K::Outputs>())
            .cloned()
            .ok_or_else(|| Unresolved(handle.key().to_owned()))
    }
}

/// A reference to something that does not exist (yet).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not exist")]
pub struct Unresolved(pub String);

/// What a node refers to: a handle, or tuples, vectors and options of them.
pub trait Refs: Send + Sync + 'static {
    /// The outputs, in the same shape.
    type Outputs;
    /// Adds the keys referred to.
    #[doc(hidden)]
    fn keys(&self, into: &mut BTreeSet<String>);
    /// Looks the outputs up.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn resolve(&self, resolved: &Resolved) -> Result<Self::Outputs, Unresolved>;
}

#[allow(private_interfaces)]
impl<K: Kind> Refs for Handle<K> {
    type Outputs = K::Outputs;

    fn keys(&self, into: &mut BTreeSet<String>) {
        into.insert(self.key().to_owned());
    }

    fn resolve(&self, resolved: &Resolved) -> Result<Self::Outputs, Unresolved> {
        resolved.get(self)
    }
}

#[allow(private_interfaces)]
impl<R: Refs> Refs for Vec<R> {
    type Outputs = Vec<R::Outputs>;

    fn keys(&self, into: &mut BTreeSet<String>) {
        self.iter().for_each(|refs| refs.keys(into));
    }

    fn resolve(&self, resolved: &Resolved) -> Result<Self::Outputs, Unresolved> {
        self.iter().map(|refs| refs.resolve(resolved)).collect()
    }
}

#[allow(private_interfaces)]
impl<R: Refs> Refs for Option<R> {
    type Outputs = Option<R::Outputs>;

    fn keys(&self, into: &mut BTreeSet<String>) {
        self.iter().for_each(|refs| refs.keys(into));
    }

    fn resolve(&self, resolved: &Resolved) -> Result<Self::Outputs, Unresolved> {
        self.as_ref().map(|refs| refs.resolve(resolved)).transpose()
    }
}

macro_rules! tuple_refs {
    ($($name:ident),*) => {
        #[allow(private_interfaces, non_snake_case, unused_variables, clippy::unused_unit)]
        impl<$($name: Refs),*> Refs for ($($name,)*) {
            type Outputs = ($($name::Outputs,)*);

            fn keys(&self, into: &mut BTreeSet<String>) {
                let ($($name,)*) = self;
                $($name.keys(into);)*
            }

            fn resolve(&self, resolved: &Resolved) -> Result<Self::Outputs, Unresolved> {
                let ($($name,)*) = self;
                Ok(($($name.resolve(resolved)?,)*))
            }
        }
    };
}
tuple_refs!();
tuple_refs!(A);
tuple_refs!(A, B);
tuple_refs!(A, B, C);
tuple_refs!(A, B, C, D);
tuple_refs!(A, B, C, D, E);
tuple_refs!(A, B, C, D, E, F);
tuple_refs!(A, B, C, D, E, F, G);
tuple_refs!(A, B, C, D, E, F, G, H);

/// One resource of the stack.
#[derive(Clone)]
pub struct Node {
    /// Unique in the blueprint; the value of the `understudy:resource` tag.
    pub key: String,
    /// The kind's name.
    pub kind: &'static str,
    /// Where it lives.
    pub place: Place,
    /// Keys of nodes whose outputs its `Spec` needs.
    pub refs: BTreeSet<String>,
    /// Keys of nodes that must only be there first.
    pub after: BTreeSet<String>,
    template: Arc<dyn Template>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} in {})", self.key, self.kind, self.place.region)
    }
}

impl Node {
    /// Every key this node waits for.
    pub fn dependencies(&self) -> impl Iterator<Item = &String> {
        self.refs.union(&self.after)
    }

    pub(crate) fn prepare(&self, resolved: &Resolved) -> Result<Box<dyn Prepared>, Unresolved> {
        self.template.prepare(resolved)
    }
}

/// A stack as a graph.
#[derive(Debug, Clone)]
pub struct Blueprint {
    suffix: String,
    account: String,
    extra_tags: Vec<(String, String)>,
    nodes: Vec<Node>,
    /// The position of each key; of a key that is declared twice, the first.
    index: HashMap<String, usize>,
    /// It is a part of a stack: what is missing in it may be in the rest.
    partial: bool,
}

/// What is wrong with a blueprint. Mostly, only a mistake in the code that makes it can cause it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlueprint {
    /// Two nodes with one key.
    #[error("`{0}` is declared twice")]
    Duplicate(String),
    /// A reference out of the graph.
    #[error("`{from}` refers to `{to}`, which is not in the blueprint")]
    Undeclared {
        /// The node that refers.
        from: String,
        /// The missing key.
        to: String,
    },
    /// Nodes that wait for each other.
    #[error("these wait for each other: {}", .0.join(", "))]
    Cycle(Vec<String>),
    /// What it wants breaks rules: see [`crate::check`].
    #[error("the checker refuses it: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Findings(Vec<crate::check::Finding>),
}

impl Blueprint {
    /// An empty graph.
    pub fn new(suffix: impl Into<String>, account: impl Into<String>) -> Self {
        Blueprint {
            suffix: suffix.into(),
            account: account.into(),
            extra_tags: Vec::new(),
            nodes: Vec::new(),
            index: HashMap::new(),
            partial: false,
        }
    }

    /// Adds the operator's tags to everything in it that takes tags.
    #[must_use]
    pub fn tagged(mut self, tags: impl IntoIterator<Item = (String, String)>) -> Self {
        self.extra_tags.extend(tags);
        self
    }

    /// Adds a node whose `Spec` follows from the outputs of `refs`.
    pub fn add<K: Kind, R: Refs>(
        &mut self,
        key: impl Into<String>,
        place: &Place,
        refs: R,
        spec: impl Fn(R::Outputs) -> K::Spec + Send + Sync + 'static,
    ) -> Handle<K> {
        let key = key.into();
        let mut keys = BTreeSet::new();
        refs.keys(&mut keys);
        self.index.entry(key.clone()).or_insert(self.nodes.len());
        self.nodes.push(Node {
            key: key.clone(),
            kind: K::NAME,
            place: place.clone(),
            refs: keys,
            after: BTreeSet::new(),
            template: Arc::new(Typed::<K, R, _> {
                refs,
                spec,
                kind: PhantomData,
            }),
        });
        Handle {
            key: key.into(),
            kind: PhantomData,
        }
    }

    /// `later` is created only when `earlier` is there, and deleted before it, though it needs none of its outputs.
    pub fn order<L, E>(&mut self, later: &Handle<L>, earlier: &Handle<E>) {
        if let Some(&position) = self.index.get(later.key()) {
            self.nodes[position].after.insert(earlier.key().to_owned());
        }
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The stack's suffix.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// The account it is for.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The keys of all nodes.
    pub fn keys(&self) -> BTreeSet<String> {
        self.nodes.iter().map(|node| node.key.clone()).collect()
    }

    /// The nodes with these keys and everything they depend on.
    #[must_use]
    pub fn only(&self, wanted: &BTreeSet<String>) -> Blueprint {
        let mut keep = BTreeSet::new();
        let mut queue: Vec<&str> = wanted.iter().map(String::as_str).collect();
        while let Some(key) = queue.pop() {
            if keep.insert(key.to_owned())
                && let Some(&position) = self.index.get(key)
            {
                queue.extend(self.nodes[position].dependencies().map(String::as_str));
            }
        }
        let nodes: Vec<Node> = self
            .nodes
            .iter()
            .filter(|node| keep.contains(&node.key))
            .cloned()
            .collect();
        let mut index = HashMap::new();
        for (position, node) in nodes.iter().enumerate() {
            index.entry(node.key.clone()).or_insert(position);
        }
        Blueprint {
            suffix: self.suffix.clone(),
            account: self.account.clone(),
            extra_tags: self.extra_tags.clone(),
            partial: self.partial || nodes.len() < self.nodes.len(),
            nodes,
            index,
        }
    }

    /// Whether it is a part of a stack, made with [`Blueprint::only`].
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    pub(crate) fn site<'a>(&'a self, node: &'a Node, cloud: &'a crate::cloud::Cloud) -> Site<'a> {
        Site {
            cloud,
            region: &node.place.region,
            key: &node.key,
            suffix: &self.suffix,
            account: &self.account,
            extra_tags: &self.extra_tags,
        }
    }

    /// Checks that keys are unique, references are declared, and nothing waits for itself. Returns, for each node, the
    /// positions of what it depends on and of what depends on it.
    pub(crate) fn edges(&self) -> Result<Edges, InvalidBlueprint> {
        let mut index = HashMap::new();
        for (position, node) in self.nodes.iter().enumerate() {
            if index.insert(node.key.as_str(), position).is_some() {
                return Err(InvalidBlueprint::Duplicate(node.key.clone()));
            }
        }
        let mut edges = Edges {
            before: vec![Vec::new(); self.nodes.len()],
            after: vec![Vec::new(); self.nodes.len()],
            order: Vec::with_capacity(self.nodes.len()),
        };
        for (position, node) in self.nodes.iter().enumerate() {
            for key in node.dependencies() {
                let Some(&target) = index.get(key.as_str()) else {
                    return Err(InvalidBlueprint::Undeclared {
                        from: node.key.clone(),
                        to: key.clone(),
                    });
                };
                edges.before[position].push(target);
                edges.after[target].push(position);
            }
        }
        let mut missing: Vec<usize> = edges.before.iter().map(Vec::len).collect();
        let mut queue: Vec<usize> = (0..missing.len())
            .filter(|&position| missing[position] == 0)
            .collect();
        while let Some(position) = queue.pop() {
            edges.order.push(position);
            for &next in &edges.after[position] {
                missing[next] -= 1;
                if missing[next] == 0 {
                    queue.push(next);
                }
            }
        }
        let stuck: Vec<String> = missing
            .iter()
            .enumerate()
            .filter(|(_, missing)| **missing > 0)
            .map(|(position, _)| self.nodes[position].key.clone())
            .collect();
        if stuck.is_empty() {
            Ok(edges)
        } else {
            Err(InvalidBlueprint::Cycle(stuck))
        }
    }

    /// Checks the graph.
    ///
    /// # Errors
    /// Duplicate keys, undeclared references, cycles.
    pub fn validate(&self) -> Result<(), InvalidBlueprint> {
        self.edges().map(drop)
    }
}

/// The graph by position.
#[derive(Debug, Clone)]
pub(crate) struct Edges {
    /// What each node depends on.
    pub before: Vec<Vec<usize>>,
    /// What depends on each node.
    pub after: Vec<Vec<usize>>,
    /// Every node, after all that it depends on.
    pub order: Vec<usize>,
}

/// A node before its references are resolved.
trait Template: Send + Sync {
    fn prepare(&self, resolved: &Resolved) -> Result<Box<dyn Prepared>, Unresolved>;
}

struct Typed<K, R, F> {
    refs: R,
    spec: F,
    kind: PhantomData<fn() -> K>,
}

impl<K, R, F> Template for Typed<K, R, F>
where
    K: Kind,
    R: Refs,
    F: Fn(R::Outputs) -> K::Spec + Send + Sync,
{
    fn prepare(&self, resolved: &Resolved) -> Result<Box<dyn Prepared>, Unresolved> {
        let spec = (self.spec)(self.refs.resolve(resolved)?);
        Ok(Box::new(Resource::<K> { spec, live: None }))
    }
}

/// What one observation says.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub exists: bool,
    pub settling: Option<String>,
    pub planned: Planned,
}

/// A node whose `Spec` is known, of whatever kind.
#[async_trait]
pub(crate) trait Prepared: Send {
    fn stateful(&self) -> bool;
    /// Fields of the `Spec` that cannot be changed in place.
    fn immutable(&self) -> &'static [&'static str];
    async fn observe(&mut self, site: &Site<'_>) -> Result<Seen, KindError>;
    async fn create(&mut self, site: &Site<'_>) -> Result<(), KindError>;
    /// Nothing when the last observation found nothing.
    async fn update(&mut self, site: &Site<'_>) -> Result<(), KindError>;
    /// Nothing when the last observation found nothing.
    async fn delete(&mut self, site: &Site<'_>) -> Result<(), KindError>;
    /// The outputs of the last observation.
    fn outputs(&self) -> Option<Arc<dyn Any + Send + Sync>>;
    /// The `Spec`.
    fn wanted(&self) -> Value;
    /// Outputs before there are any, for the node `key` whose `Spec` is `spec`.
    fn placeholders(&self, key: &str, spec: &Value) -> Arc<dyn Any + Send + Sync>;
}

struct Resource<K: Kind> {
    spec: K::Spec,
    live: Option<Live<K::Spec, K::Outputs>>,
}

#[async_trait]
impl<K: Kind> Prepared for Resource<K> {
    fn stateful(&self) -> bool {
        K::STATEFUL
    }

    fn immutable(&self) -> &'static [&'static str] {
        K::IMMUTABLE
    }

    async fn observe(&mut self, site: &Site<'_>) -> Result<Seen, KindError> {
        self.live = K::observe(site, &self.spec).await?;
        Ok(Seen {
            exists: self.live.is_some(),
            settling: self.live.as_ref().and_then(|live| live.settling.clone()),
            planned: plan::plan::<K>(&self.spec, self.live.as_ref().map(|live| &live.spec)),
        })
    }

    async fn create(&mut self, site: &Site<'_>) -> Result<(), KindError> {
        K::create(site, &self.spec).await
    }

    async fn update(&mut self, site: &Site<'_>) -> Result<(), KindError> {
        match &self.live {
            Some(live) => K::update(site, &self.spec, live).await,
            None => Ok(()),
        }
    }

    async fn delete(&mut self, site: &Site<'_>) -> Result<(), KindError> {
        match &self.live {
            Some(live) => K::delete(site, live).await,
            None => Ok(()),
        }
    }

    fn outputs(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.live
            .as_ref()
            .map(|live| Arc::new(live.outputs.clone()) as Arc<dyn Any + Send + Sync>)
    }

    fn wanted(&self) -> Value {
        serde_json::to_value(&self.spec).expect("a Spec is plain data")
    }

    fn placeholders(&self, key: &str, spec: &Value) -> Arc<dyn Any + Send + Sync> {
        let outputs: K::Outputs =
            placeholder::outputs(key, spec).expect("outputs are ids, addresses and numbers");
        Arc::new(outputs)
    }
}
