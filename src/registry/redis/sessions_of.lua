-- KEYS: the index of a subject. ARGV: number of this partition. Answers the names and values of the subject's sessions here.
only_here()
local answer = {}
for _, hex in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    if tonumber(string.sub(hex, 1, 2), 16) % 64 == tonumber(ARGV[3]) then
        local value = redis.call('GET', prefix .. ':s:' .. hex)
        if read(value) then
            answer[#answer + 1] = hex
            answer[#answer + 1] = value
        end
    end
end
return answer
