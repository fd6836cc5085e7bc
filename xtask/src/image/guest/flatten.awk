# Turns JSON or simple YAML into lines "path/to/key<TAB>value", lists counted from 0.
# Understood: JSON, flow style on one line, block maps and lists of scalars or maps.
# Not understood: anchors, block scalars (| and >), flow style over several lines of
# a block document. Quiet on bad input: what cannot be read is not printed.

{ lines[NR] = $0; if ($0 !~ /^[ \t]*(#|---|$)/ && first == "") first = $0 }

END {
    if (first ~ /^[ \t]*[{\[]/) {
        for (i = 1; i <= NR; i++) if (lines[i] !~ /^[ \t]*#/) text = text lines[i] "\n"
        flow("", token())
    } else {
        for (i = 1; i <= NR; i++) if (lines[i] !~ /^[ \t]*(#|---|$)/) block(lines[i])
    }
}

function join(path, key) { return path == "" ? key : path "/" key }

function plain(word) {
    if (word ~ /^".*"$/) {
        word = substr(word, 2, length(word) - 2)
        gsub(/\\n/, " ", word); gsub(/\\\//, "/", word); gsub(/\\"/, "\"", word); gsub(/\\\\/, "\\", word)
    } else if (word ~ /^'.*'$/) {
        word = substr(word, 2, length(word) - 2)
    } else {
        sub(/[ \t]+#.*$/, "", word); sub(/[ \t\r\n]+$/, "", word)
    }
    return word
}

# Takes the next word or sign off `text`.
function token(    word, colon) {
    sub(/^[ \t\r\n]+/, "", text)
    if (text == "") return ""
    if (match(text, /^"([^"\\]|\\.)*"/) || match(text, /^'[^']*'/) || match(text, /^[][{},:]/)) {
        word = substr(text, 1, RLENGTH)
    } else {
        match(text, /^[^][{},]+/)
        word = substr(text, 1, RLENGTH)
        if (colon = match(word, /:([ \t]|$)/)) word = substr(word, 1, colon - 1)
    }
    text = substr(text, length(word) + 1)
    return word
}

function flow(path, word,    key, count) {
    if (word == "{") {
        while ((key = token()) != "}" && key != "") {
            if (key == ",") continue
            token()
            flow(join(path, plain(key)), token())
        }
    } else if (word == "[") {
        count = 0
        while ((word = token()) != "]" && word != "") if (word != ",") flow(path "/" count++, word)
    } else if (word != "") {
        print path "\t" plain(word)
    }
}

function put(path, value) {
    if (value ~ /^[{\[]/) { text = value; flow(path, token()) }
    else print path "\t" plain(value)
}

# One line of a block document; `depth` open maps and list items, each with its
# indentation, its path, and whether it is a list item.
function block(line,    indent, path, dash) {
    match(line, /^ */); indent = RLENGTH
    line = substr(line, indent + 1); sub(/[ \t\r]+$/, "", line)
    dash = line ~ /^-([ \t]|$)/
    while (depth && (at[depth] > indent || (at[depth] == indent && (item[depth] || !dash)))) depth--
    path = depth ? paths[depth] : ""
    if (dash) {
        path = path "/" (counts[path] + 0); counts[paths[depth]]++
        depth++; at[depth] = indent; paths[depth] = path; item[depth] = 1
        match(line, /^-[ \t]*/); indent += RLENGTH; line = substr(line, RLENGTH + 1)
        if (line == "") return
        if (line ~ /^["'{\[]/ || line !~ /^[^ \t:]+:([ \t]|$)/) { put(path, line); return }
    }
    if (!match(line, /:([ \t]|$)/)) return
    path = join(path, plain(substr(line, 1, RSTART - 1)))
    line = substr(line, RSTART + 1); sub(/^[ \t]+/, "", line)
    depth++; at[depth] = indent; paths[depth] = path; item[depth] = 0
    if (line != "" && line !~ /^#/) put(path, line)
}
