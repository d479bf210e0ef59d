-- KEYS: the index of a sid or a subject. ARGV: number of this partition. Answers the names of its sessions in other partitions, then names
-- and values of those here.
only_here()
local answer, elsewhere = {''}, {}
for _, hex in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    if tonumber(string.sub(hex, 1, 2), 16) % 64 ~= tonumber(ARGV[3]) then
        elsewhere[#elsewhere + 1] = hex
    else
        local value = redis.call('GET', prefix .. ':s:' .. hex)
        if read(value) then
            answer[#answer + 1] = hex
            answer[#answer + 1] = value
        end
    end
end
answer[1] = table.concat(elsewhere, ' ')
return answer
