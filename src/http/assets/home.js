// Sends the two forms of the home page to the service and shows what it answers.
'use strict';

function answers(form, output, request, shown) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    output.classList.remove('wrong');
    output.textContent = '…';
    try {
      const answer = await fetch(form.dataset.url, { method: 'POST', ...request(new FormData(form)) });
      const document = await answer.json();
      output.classList.toggle('wrong', !answer.ok);
      output.textContent = answer.ok ? shown(document) : document.detail;
    } catch {
      output.classList.add('wrong');
      output.textContent = 'The service does not answer.';
    }
  });
}

answers(
  document.getElementById('addition'),
  document.getElementById('sum'),
  (fields) => ({
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ a: Number(fields.get('a')), b: Number(fields.get('b')) }),
  }),
  ({ result }) => `= ${result}`,
);
answers(
  document.getElementById('fibonacci'),
  document.getElementById('number'),
  () => ({ credentials: 'same-origin' }),
  ({ index, value }) => `F(${index}) = ${value}`,
);
