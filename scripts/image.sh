# shellcheck shell=sh
# Builds container images as an OCI image layout with nothing but a shell, tar, gzip and sha256sum. Sourced, never run.
#
# In $parts, a folder for what lies between, NAME.layer holds "digest size diff_id" of a layer, NAME.manifest a descriptor.

# image_begin LAYOUT PARTS  An empty layout in the folder LAYOUT.
image_begin() {
    layout=$1 parts=$2
    mkdir -p "$layout/blobs/sha256" "$parts"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    : >"$parts/entries"
}

sha256_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# image_blob FILE  Moves FILE into the layout; prints "digest size".
image_blob() {
    hex=$(sha256_of "$1")
    size=$(stat -c %s "$1")
    mv "$1" "$layout/blobs/sha256/$hex"
    printf 'sha256:%s %s\n' "$hex" "$size"
}

# image_layer NAME FOLDER  Packs FOLDER as the layer NAME; FOLDER is gone afterwards.
image_layer() {
    tar -C "$2" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$parts/$1.tar" .
    rm -rf "$2"
    diff_id=sha256:$(sha256_of "$parts/$1.tar")
    gzip -n -1 "$parts/$1.tar"
    printf '%s %s\n' "$(image_blob "$parts/$1.tar.gz")" "$diff_id" >"$parts/$1.layer"
}

# image_manifest NAME ARCHITECTURE LAYER...  One platform: config and manifest; parts/NAME.manifest holds its descriptor.
image_manifest() {
    name=$1 architecture=$2
    shift 2
    layers=
    diff_ids=
    for layer; do
        read -r digest size diff_id <"$parts/$layer.layer"
        layers="$layers${layers:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"$digest\",\"size\":$size}"
        diff_ids="$diff_ids${diff_ids:+,}\"$diff_id\""
    done
    printf '{"created":"2026-01-01T00:00:00Z","architecture":"%s","os":"linux","config":{"Cmd":["/hello"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$architecture" "$diff_ids" >"$parts/config"
    descriptor=$(image_blob "$parts/config")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[%s]}' \
        "${descriptor% *}" "${descriptor#* }" "$layers" >"$parts/manifest"
    descriptor=$(image_blob "$parts/manifest")
    printf '{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%s,"platform":{"architecture":"%s","os":"linux"}}' \
        "${descriptor% *}" "${descriptor#* }" "$architecture" >"$parts/$name.manifest"
}

# image_index TAG MANIFEST...  An index over manifests, entered into the layout as TAG; prints its digest.
image_index() {
    tag=$1
    shift
    manifests=
    for manifest; do
        manifests="$manifests${manifests:+,}$(cat "$parts/$manifest.manifest")"
    done
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' "$manifests" >"$parts/index"
    descriptor=$(image_blob "$parts/index")
    printf '%s{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"%s"}}' \
        "$([ ! -s "$parts/entries" ] || printf ,)" "${descriptor% *}" "${descriptor#* }" "$tag" >>"$parts/entries"
    printf '{"schemaVersion":2,"manifests":[%s]}' "$(cat "$parts/entries")" >"$layout/index.json"
    printf '%s\n' "${descriptor% *}"
}
