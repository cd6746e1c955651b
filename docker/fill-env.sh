#!/usr/bin/env bash
# Write docker/.env from env.example: a new secret for each name, and the digest that the registry has for each image.
#   docker/fill-env.sh [FILE]    what FILE (docker/.env) has already is kept; needs docker with buildx
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
file=${1:-$here/.env}

digest() { # of an image, whatever machine this is: that of the list of its variants
    local found
    found=$(docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}')
    if ! [[ $found =~ ^sha256:[0-9a-f]{64}$ ]]; then
        echo "docker says '$found' where the digest of $1 was expected; $file stays as it is" >&2
        return 1
    fi
    echo "$1@$found"
}

secret() {
    case $1 in
        FERNET_KEY) head -c 32 /dev/urandom | base64 | tr '+/' '-_' ;;
        *) head -c 24 /dev/urandom | od -An -vtx1 | tr -d ' \n' ;;
    esac
}

filled=$(mktemp "$file.XXXXXX") # for its owner alone
trap 'rm -f "$filled"' EXIT
said=
while IFS= read -r line; do
    name=${line%%=*}
    if [[ $line =~ ^[A-Z0-9_]+= ]]; then
        value=$([ ! -e "$file" ] || sed -n "s|^$name=||p" "$file")
        value=${value:-${line#*=}}
        if [ -z "$value" ]; then
            # The image is what the comment before its name says.
            case $name in *_IMAGE) value=$(digest "$said") ;; *) value=$(secret "$name") ;; esac
        fi
        line=$name=$value
    fi
    said=${line#\# }
    said=${said%%,*}
    printf '%s\n' "$line"
done <"$here/env.example" >"$filled"
# What a person has added.
[ ! -e "$file" ] || sed -n 's/^\([A-Z0-9_]*\)=.*/\1/p' "$file" | while IFS= read -r name; do
    grep -q "^$name=" "$filled" || sed -n "/^$name=/p" "$file" >>"$filled"
done
mv "$filled" "$file"
echo "$file is complete"
