# The SBOM (CycloneDX 1.6, JSON) of a program: packaging/build runs it, and says where its variables come from.
#
# cargo names each crate that it has compiled, and where: for the target it is part of the program, for this machine it is a
# procedural macro or a build script. So nothing is there for a feature, a platform or a test that the program is without.
# Which of them uses which, "cargo tree" says: "cargo metadata" also has what a feature would use that is off.

def purl: "pkg:cargo/\(.name)@\(.version)";
def with_values: with_entries(select(.value != null));

# {user: {used: true}} of lines like "2 log v0.4.35", of which the number says how deep it is in the tree
def uses:
  reduce (split("\n")[] | capture("^(?<depth>[0-9]+) (?<name>\\S+) v(?<version>\\S+)")) as $line ({ above: [], uses: {} };
    ($line | purl) as $used
    | .above = .above[:$line.depth | tonumber]
    | if .above != [] then .uses[.above[-1]][$used] = true else . end
    | .above += [$used])
  | .uses;

(INDEX($metadata[0].packages[]; .id)) as $packages
| $metadata[0].resolve.root as $root
| [$built[] | select(any(.filenames[]?; contains("/\($target)/release/"))) | .package_id] | unique as $parts
| ([$lock | scan("name = \"(.*)\"\nversion = \"(.*)\"\nsource = .*\nchecksum = \"(.*)\"")]
    | map({ key: "\(.[0]) \(.[1])", value: .[2] }) | from_entries) as $sums

| def component(type; sum): {
    type: type,
    "bom-ref": purl,
    name, version, description,
    hashes: ((sum | values | [{ alg: "SHA-256", content: . }]) // null),
    licenses: [{ expression: (.license | gsub("/"; " OR ")) }],
    purl: purl,
    externalReferences: [{ type: "vcs", url: (.repository | values) }]
  } | with_values;

# what is linked to crates has no address of a package: scanners know it by its CPE
def linked(name; version; vendor; product): {
    type: "library",
    "bom-ref": name,
    name: name, version: version,
    cpe: "cpe:2.3:a:\(vendor):\(product):\(version):*:*:*:*:*:*:*"
  };
([linked("std"; $rust; "rust-lang"; "rust")] + [$glibc | select(. != "") | linked("glibc"; .; "gnu"; "glibc")]) as $linked

| {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      timestamp: ($epoch | tonumber | todate),
      lifecycles: [{ phase: "build" }],
      component: ($packages[$root] | component("application"; $sum)),
      properties: [{ name: "target", value: $target }]
    },
    components: ([$packages[$parts[] | select(. != $root)] | component("library"; $sums["\(.name) \(.version)"])] + $linked),
    dependencies: [
      ($tree | uses) as $uses | $packages[$parts[]] | {
        ref: purl,
        dependsOn: ([$uses[purl] // {} | keys[]] + [select(.id == $root) | $linked[]["bom-ref"]])
      }
    ]
  }
