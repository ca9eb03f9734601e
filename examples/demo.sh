#!/usr/bin/env bash
# The whole way in four lines: train both stages, export, ask. Then the same question in six languages.
# Writes runs/ and bundles/ in the current folder; a second run starts over.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
image="${1:-$here/beach.jpg}"

echo "The bundle inside the package answers before anything is trained:"
parrot-run "$image" "Görselde ne var?" --stats

started=$SECONDS
parrot-train stage1 --force
parrot-train stage2 --force
parrot-export --fp16 --force
parrot-run "$image" "Görselde ne var?"
echo "Those four lines took $((SECONDS - started)) seconds."

for question in "What is in the picture?" "图片里有什么？" "O que há na imagem?" "ماذا يوجد في الصورة؟" \
    "Görselde ne var?" "Что на картинке?"; do
    echo
    echo "$question"
    parrot-run "$image" "$question" --stats
done
